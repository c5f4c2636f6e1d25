"""A bounded run of the fuzzer; `python tests/fuzz/run.py --seconds 3600` is the long one."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.fuzz.run import FuzzerUnavailableError, run
from tests.fuzz.targets import TARGETS

pytestmark = pytest.mark.ci

SECONDS = int(os.environ.get("DHP_FUZZ_SECONDS", "4"))
# The targets that read whole messages; the others are small enough for their corpus.
LONG = ["response", "rewriting", "request"]


def test_nothing_is_found(tmp_path: Path) -> None:
    """In the given time no input breaks a promise, takes ten seconds or fills the memory."""
    assert set(LONG) <= set(TARGETS)
    try:
        ended = run(LONG, SECONDS, tmp_path / "found")
    except FuzzerUnavailableError as error:
        pytest.skip(f"atheris cannot be installed: {error}")
    assert [each.target for each in ended] == LONG
    for each in ended:
        assert not each.failed, f"{each.target}: {each.found}\n{each.output[-4000:]}"
        units = re.search(r"number_of_executed_units: (\d+)", each.output)
        # Not the speed is judged: that it fuzzed at all is.
        assert units is not None
        assert int(units[1]) > 100
