"""`dhp-gateway audit`: the output of the verification of audit files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gateway.audit.verify import VerificationReport
from gateway.phrases import Phrase


def format_report(verdict: VerificationReport) -> Iterator[Phrase]:
    """Yield the verification report as lines for the operator."""
    for place in verdict.torn:
        yield Phrase(
            "{place}: half a line, reported by the gateway after it was cut off", place=place
        )
    if verdict.fault is not None:
        bad = verdict.fault
        place = f"{bad.file}:{bad.line}"
        fault = Phrase(bad.fault)
        yield Phrase("{place}: {fault}: {detail}", place=place, fault=fault, detail=bad.detail)
    elif verdict.first is None:
        yield Phrase("There is no record.")
    else:
        if verdict.first > 1:
            yield Phrase(
                "The chain begins with record {seq}; older files were not given.",
                seq=verdict.first,
            )
        state = Phrase("is whole") if verdict.is_end_proven else Phrase("holds")
        yield Phrase(
            "The chain of {count} records {state}; record {seq} has hash {digest}.",
            count=verdict.records,
            state=state,
            seq=verdict.last.seq,
            digest=verdict.last.hash,
        )
    if verdict.fault is None and not verdict.is_end_proven:
        yield Phrase(
            "Its end is unproven: no .NAME.chain of the gateway lies beside the files, so later "
            "records may be missing. Compare {seq} with the last number known elsewhere.",
            seq=verdict.last.seq,
        )


def report_document(verdict: VerificationReport) -> dict[str, Any]:
    """Return the verification report as a JSON object for programs."""
    bad = verdict.fault
    return {
        "ok": verdict.is_intact,
        "end_proven": verdict.is_end_proven,
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
