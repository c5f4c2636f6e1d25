"""`dhp-gateway audit`: looks after audit files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.telemetry.verifying import Verdict


def describe(verdict: Verdict) -> Iterator[str]:
    """What was found, a line each, for people."""
    for place in verdict.torn:
        yield f"{place}: half a line, reported by the gateway after it was cut off"
    if verdict.bad is not None:
        bad = verdict.bad
        yield f"{bad.file}:{bad.line}: {bad.fault}: {bad.detail}"
    elif verdict.first is None:
        yield "There is no record."
    else:
        if verdict.first > 1:
            yield f"The chain begins with record {verdict.first}; older files were not given."
        seq, digest = verdict.last
        yield f"The chain of {verdict.records} records is whole; record {seq} has hash {digest}."


def as_document(verdict: Verdict) -> dict[str, Any]:
    """The same for programs."""
    bad = verdict.bad
    return {
        "ok": bad is None,
        "files": [str(file) for file in verdict.files],
        "records": verdict.records,
        "first_seq": verdict.first,
        "last_seq": verdict.last.seq,
        "last_hash": verdict.last.hash,
        "torn": verdict.torn,
        "bad": None
        if bad is None
        else {
            "file": str(bad.file),
            "line": bad.line,
            "fault": bad.fault,
            "detail": bad.detail,
        },
    }
