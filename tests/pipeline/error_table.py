"""The table of errors, written a second time, and how evidence is checked against it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final
from xml.etree import ElementTree

from gateway.errors import outcome_text
from tests.doubles.wire import Reply
from tests.pipeline.stage import Evidence

_FHIR: Final = "{http://hl7.org/fhir}"
# The gateway may have requested its first token or not, before it needs one.
PERHAPS: Final = (0, 1)


@dataclass(frozen=True)
class Row:
    """The visible effects of one kind of failure.

    `seen` and `asked` are the possible numbers of requests at the platform and the SSO; `closed`:
    None leaves closing to the gateway; `parsed`: False when neither language nor format of the
    request is known; `write`: the request was not safe; `advice` names the text for users where it
    is not that of the reason.
    """

    status: int
    issue_code: str
    severity: str = "error"
    retry_after: bool = False
    allow: bool = False
    challenge: bool = False
    closed: bool | None = False
    parsed: bool = True
    seen: tuple[int, ...] = (0,)
    asked: tuple[int, ...] = PERHAPS
    attempts: tuple[int, ...] = (0,)
    upstream_status: int | None = None
    write: bool = False
    advice: str = ""

    def but(self, **changes: Any) -> Row:
        """Return the row with some changes; a single number stands for a tuple of it."""
        plural = {"seen", "asked", "attempts"}
        changed: dict[str, Any] = {
            name: (value,) if name in plural and isinstance(value, int) else value
            for name, value in changes.items()
        }
        return replace(self, **changed)


ERROR_TABLE: Final[dict[str, Row]] = {
    "bad-request": Row(400, "value", closed=True),
    "unknown-path": Row(404, "not-found"),
    "loop": Row(508, "processing"),
    "misdirected": Row(421, "not-supported", closed=True),
    "method-not-allowed": Row(405, "not-supported", allow=True, closed=None),
    "caller-unauthenticated": Row(401, "login", challenge=True, closed=None),
    "caller-unknown": Row(401, "unknown", challenge=True, closed=None),
    "caller-forbidden": Row(403, "forbidden"),
    "rate-limited": Row(429, "throttled", retry_after=True, asked=(1,)),
    "header-timeout": Row(408, "timeout", closed=True, parsed=False),
    "body-timeout": Row(408, "timeout", closed=True, seen=(0, 1), asked=PERHAPS, attempts=(0, 1)),
    "payload-too-large": Row(413, "too-long", closed=True),
    "url-too-long": Row(414, "too-long", closed=True, parsed=False),
    "header-too-large": Row(431, "too-long", closed=True),
    "overloaded": Row(503, "throttled", retry_after=True),
    "token-refused": Row(502, "security", asked=(1,)),
    "sso-unavailable": Row(503, "transient", retry_after=True, asked=(1,)),
    "token-rejected": Row(
        502, "security", seen=(2,), asked=(2,), attempts=(2,), upstream_status=401
    ),
    "upstream-unreachable": Row(503, "transient", retry_after=True, asked=(1,), attempts=(3,)),
    "upstream-failed": Row(502, "incomplete", seen=(1,), asked=(1,), attempts=(1,), write=True),
    "upstream-busy": Row(503, "throttled", retry_after=True, asked=(1,), attempts=(1,)),
    "upstream-tls": Row(502, "security", "fatal", asked=(1,), attempts=(1,)),
    "upstream-timeout": Row(504, "timeout", seen=(1,), asked=(1,), attempts=(1,)),
    "upstream-redirect": Row(
        502, "processing", seen=(1,), asked=(1,), attempts=(1,), upstream_status=302
    ),
    "upstream-non-fhir": Row(
        404, "not-found", seen=(1,), asked=(1,), attempts=(1,), upstream_status=404
    ),
    "search-parameter-ignored": Row(
        400, "not-supported", seen=(1,), asked=(1,), attempts=(1,), upstream_status=200
    ),
    "condition-unsupported": Row(400, "not-supported", asked=(1,)),
    "circuit-open": Row(503, "transient", retry_after=True, asked=(1,)),
    "audit-unavailable": Row(503, "no-store"),
    "shutting-down": Row(503, "transient", closed=True, asked=(1,)),
    "internal": Row(500, "exception", "fatal", closed=None),
}


async def judge(
    evidence: Evidence, reason: str, row: Row, *, language: str = "en", xml: bool = False
) -> None:
    """Check the evidence against a row of the table."""
    reply = evidence.reply
    assert (reply.status, reply.header("x-gateway-error")) == (row.status, reason)
    assert reply.header("cache-control") == "no-store"
    _judge_outcome(reply, reason, row, language=language, xml=xml and row.parsed)
    _judge_fields(reply, row)
    assert row.closed is None or evidence.closed is row.closed
    assert len(evidence.seen) in row.seen
    assert evidence.token_requests in row.asked
    if evidence.audited:
        await _judge_record(evidence, reason, row)
    assert await evidence.counted(row.status, reason) == 1


def _judge_outcome(reply: Reply, reason: str, row: Row, *, language: str, xml: bool) -> None:
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


def _judge_fields(reply: Reply, row: Row) -> None:
    retry_after = reply.header("retry-after")
    if row.retry_after or retry_after is not None:
        assert int(retry_after or "") > 0
    assert bool(reply.all("www-authenticate")) is row.challenge
    allow = reply.header("allow")
    assert (allow is not None) is row.allow
    assert not row.allow or {"GET", "POST", "PUT", "DELETE"} <= set((allow or "").split(", "))


async def _judge_record(evidence: Evidence, reason: str, row: Row) -> None:
    record = await evidence.record()
    assert (record["status"], record["reason"]) == (row.status, reason)
    assert record["upstream_status"] == row.upstream_status
    assert record["attempts"] in row.attempts
    assert record["outcome"] == ("failure" if row.status >= 500 else "client-error")


def read_json(reply: Reply) -> dict[str, str]:
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
