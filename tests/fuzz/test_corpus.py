"""Every input of the corpus, and every one that ever broke a promise, is replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).with_name("corpus")


@pytest.mark.parametrize("name", TARGETS)
def test_corpus(name: str) -> None:
    """No stored input breaks what its target promises."""
    inputs = sorted((CORPUS / name).iterdir())
    assert len(inputs) >= 3
    for path in inputs:
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            error.add_note(f"input: {path}")
            raise
