"""The result of a failure as a row of the table of faults, and its comparison with the evidence."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final
from xml.etree import ElementTree

from gateway.errors import outcome_text
from tests.doubles.wire import Response
from tests.pipeline.testbed import Evidence

_FHIR: Final = "{http://hl7.org/fhir}"
# The gateway may have requested its first token or not, before it needs one.
PERHAPS: Final = (0, 1)


@dataclass(frozen=True)
class Row:
    """The expected result of one kind of failure.

    The caller receives `status` to `closed`; `closed`: None leaves closing to the gateway;
    `parsed`: False when neither language nor format of the request is known; `retry_after` is a
    text where its value is known. The diagnostics contain `diagnostics`, and warn with
    `is_outcome_unknown` that the platform may have processed the request, so that it must not be
    repeated; `absent` is nowhere in the body. `requests` and `token_requests` are the possible
    numbers of requests at the platform and the SSO; `retries` are counted by cause, and `tokens` is
    the only counted outcome of token requests. `write`: the request was not safe; `advice` names
    the text for users where it is not that of the reason; `logged` are level and words of the log
    line.
    """

    status: int
    issue_code: str
    severity: str = "error"
    retry_after: bool | str = False
    allow: bool = False
    challenge: bool = False
    closed: bool | None = False
    parsed: bool = True
    diagnostics: str = ""
    absent: bytes = b""
    is_outcome_unknown: bool = False
    requests: tuple[int, ...] = (0,)
    token_requests: tuple[int, ...] = PERHAPS
    attempts: tuple[int, ...] = (0,)
    retries: Mapping[str, int] = field(default_factory=dict)
    tokens: str = ""
    upstream_status: int | None = None
    write: bool = False
    advice: str = ""
    logged: tuple[int, str] | None = None

    def changed(self, **changes: Any) -> Row:
        """Return the row with some changes; a single number stands for a tuple of it."""
        plural = {"requests", "token_requests", "attempts"}
        changed: dict[str, Any] = {
            name: (value,) if name in plural and isinstance(value, int) else value
            for name, value in changes.items()
        }
        return replace(self, **changed)


async def assert_result(
    evidence: Evidence, reason: str, row: Row, *, language: str = "en", xml: bool = False
) -> None:
    """Check the evidence against a row of the table."""
    reply = evidence.response
    assert (reply.status, reply.header("x-gateway-error")) == (row.status, reason)
    assert reply.header("cache-control") == "no-store"
    _judge_outcome(reply, reason, row, language=language, xml=xml and row.parsed)
    _judge_fields(reply, row)
    assert row.closed is None or evidence.closed is row.closed
    assert len(evidence.requests) in row.requests
    assert evidence.token_requests in row.token_requests
    if evidence.audited:
        await _judge_record(evidence, reason, row)
    counts = await evidence.counts(row.status, reason)
    assert (counts.requests, counts.retries) == (1, row.retries)
    assert not row.tokens or counts.token_outcomes == {row.tokens}


async def assert_passed(evidence: Evidence, status: int, body: bytes) -> None:
    """Check that the platform's response reached the caller unchanged, after one attempt."""
    reply = evidence.response
    assert (reply.status, reply.reason, reply.body) == (status, None, body)
    assert len(evidence.requests) == 1
    record = await evidence.record()
    assert (record["status"], record["upstream_status"]) == (status, status)
    assert (record["reason"], record["attempts"]) == ("", 1)
    assert record["outcome"] == outcome_of(status)
    counts = await evidence.counts(status, "")
    assert (counts.requests, counts.retries) == (1, {})


def outcome_of(status: int) -> str:
    """Return how the audit calls a complete response with this status."""
    if status >= 500:
        return "failure"
    return "client-error" if status >= 400 else "success"


def _judge_outcome(reply: Response, reason: str, row: Row, *, language: str, xml: bool) -> None:
    form = "xml" if xml else "json"
    assert (reply.header("content-type") or "").startswith(f"application/fhir+{form}")
    found = read_xml(reply.body) if xml else read_json(reply)
    request_id = reply.header("x-request-id")
    diagnostics = found.pop("diagnostics")
    assert found == {
        "id": request_id,
        "severity": row.severity,
        "code": row.issue_code,
        "system": "urn:dhp-gateway:error",
        "reason": reason,
        "text": outcome_text(reason, language, write=row.write, advice=row.advice),
    }
    attempts = re.search(r"attempts=(\d+)", diagnostics)
    assert attempts is not None
    assert int(attempts[1]) in row.attempts
    assert f"request-id={request_id};" in diagnostics
    assert f"platform-status={row.upstream_status or 'none'}" in diagnostics
    assert row.diagnostics in diagnostics
    assert ("outcome unknown" in diagnostics) is row.is_outcome_unknown
    assert not row.absent or row.absent not in reply.body


def _judge_fields(reply: Response, row: Row) -> None:
    retry_after = reply.header("retry-after")
    assert (retry_after is not None) is bool(row.retry_after)
    assert retry_after is None or int(retry_after) > 0
    assert row.retry_after in (True, False, retry_after)
    assert reply.header("location") is None
    assert bool(reply.all("www-authenticate")) is row.challenge
    allow = reply.header("allow")
    assert (allow is not None) is row.allow
    assert not row.allow or {"GET", "POST", "PUT", "DELETE"} <= set((allow or "").split(", "))


async def _judge_record(evidence: Evidence, reason: str, row: Row) -> None:
    record = await evidence.record()
    assert (record["status"], record["reason"]) == (row.status, reason)
    assert record["upstream_status"] == row.upstream_status
    assert record["attempts"] in row.attempts
    assert record["outcome"] == outcome_of(row.status)


def read_json(reply: Response) -> dict[str, str]:
    """Return the elements of a JSON outcome with one issue."""
    outcome = reply.json()
    assert outcome["resourceType"] == "OperationOutcome"
    (issue,) = outcome["issue"]
    (coding,) = issue["details"]["coding"]
    return {
        "id": outcome["id"],
        "severity": issue["severity"],
        "code": issue["code"],
        "system": coding["system"],
        "reason": coding["code"],
        "text": issue["details"]["text"],
        "diagnostics": issue["diagnostics"],
    }


def read_xml(body: bytes) -> dict[str, str]:
    """Return the elements of an XML outcome with one issue."""
    root = ElementTree.fromstring(body)  # noqa: S314 - the gateway wrote it
    assert root.tag == f"{_FHIR}OperationOutcome"
    (issue,) = root.findall(f"{_FHIR}issue")
    paths = {
        "severity": "severity",
        "code": "code",
        "system": "details/coding/system",
        "reason": "details/coding/code",
        "text": "details/text",
        "diagnostics": "diagnostics",
    }
    found = {"id": _value(root, "id")}
    found.update((name, _value(issue, path)) for name, path in paths.items())
    return found


def _value(element: ElementTree.Element, path: str) -> str:
    found = element.find("/".join(f"{_FHIR}{name}" for name in path.split("/")))
    assert found is not None, path
    return found.attrib["value"]
