"""Every input of the corpus, and every one that ever broke a promise, is replayed."""

from __future__ import annotations

import pytest

from tests.fuzz.targets import TARGETS
from tests.tracked_files import tracked_files


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """No stored input breaks what its target promises."""
    inputs = tracked_files(f"tests/fuzz/corpus/{name}/*")
    assert len(inputs) >= 3
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise
