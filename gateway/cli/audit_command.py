"""`dhp-gateway audit`: the output of the verification of audit files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway.i18n import Message

if TYPE_CHECKING:
    from gateway.audit.chain_verification import VerificationReport


def format_report(report: VerificationReport) -> Iterator[Message]:
    """Yield the verification report as lines for the operator."""
    for position in report.torn:
        yield Message(
            "{place}: half a line, recorded by the gateway after it was interrupted", place=position
        )
    if report.fault is not None:
        chain_fault = report.fault
        position = f"{chain_fault.file}:{chain_fault.line}"
        fault = Message(chain_fault.fault)
        yield Message(
            "{place}: {fault}: {detail}", place=position, fault=fault, detail=chain_fault.detail
        )
    elif report.first is None:
        yield Message("There are no records.")
    else:
        if report.first > 1:
            yield Message(
                "The chain begins with record {seq}; older files were not given.",
                seq=report.first,
            )
        state = Message("is complete") if report.is_end_proven else Message("is not broken")
        yield Message(
            "The chain of {count} records {state}; record {seq} has hash {digest}.",
            count=report.records,
            state=state,
            seq=report.last.seq,
            digest=report.last.hash,
        )
    if report.fault is None and not report.is_end_proven:
        yield Message(
            "Its end is not confirmed: beside the files there is no file .NAME.chain of the "
            "gateway, so later records may be missing. Compare {seq} with the last number known "
            "from elsewhere.",
            seq=report.last.seq,
        )


def report_document(report: VerificationReport) -> dict[str, Any]:
    """Return the verification report as a JSON object for programs."""
    chain_fault = report.fault
    return {
        "ok": chain_fault is None,
        "end_proven": report.is_end_proven,
        "files": [str(file) for file in report.files],
        "records": report.records,
        "first_seq": report.first,
        "last_seq": report.last.seq,
        "last_hash": report.last.hash,
        "torn": report.torn,
        "bad": None
        if chain_fault is None
        else {
            "file": str(chain_fault.file),
            "line": chain_fault.line,
            "fault": chain_fault.fault,
            "detail": chain_fault.detail,
        },
    }
