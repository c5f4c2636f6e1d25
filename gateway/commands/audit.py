"""`dhp-gateway audit`: looks after audit files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.audit.verify import Verdict


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
        state = "is whole" if verdict.end_proven else "holds"
        yield f"The chain of {verdict.records} records {state}; record {seq} has hash {digest}."
    if verdict.bad is None and not verdict.end_proven:
        yield (
            "Its end is unproven: no .NAME.chain of the gateway lies beside the files, so later "
            f"records may be missing. Compare {verdict.last.seq} with the last number known "
            "elsewhere."
        )


def as_document(verdict: Verdict) -> dict[str, Any]:
    """The same for programs."""
    bad = verdict.bad
    return {
        "ok": verdict.whole,
        "end_proven": verdict.end_proven,
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
