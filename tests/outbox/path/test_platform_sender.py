"""Results of attempts by response, and verification of writes in doubt."""

from __future__ import annotations

import gzip
import json
import time
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from gateway import errors
from gateway.config.outbound_settings import FhirSettings
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.fhir.capability_statement import TypeCapability
from gateway.http.client.upstream_response import UpstreamResponse
from gateway.oauth.token_response import AccessToken
from gateway.outbox.attempt_result import AttemptResult, VerificationStatus, decide_on_finding
from gateway.outbox.entry import (
    EntryState,
    OutboxEntry,
    QueuedRequest,
    RecoveryMode,
)
from gateway.outbox.platform_sender import EntrySender
from gateway.pipeline.body_worker import SerialExecutor
from gateway.pipeline.platform_client import CapabilityCache, PlatformClient
from gateway.pipeline.upstream import UpstreamRequest

PRESENT, ABSENT = VerificationStatus.PRESENT, VerificationStatus.ABSENT
INCONCLUSIVE, SAFE = VerificationStatus.INCONCLUSIVE, VerificationStatus.SAFE_TO_RESEND
ENTRY = OutboxEntry(
    1, "e", "lab", EntryState.SENDING, RecoveryMode.VERIFY, True, 0.0, 0.0, None, 2, 1, ""
)
JSON = (b"Content-Type", b"application/fhir+json")
SENT: dict[str, Any] = {
    "resourceType": "Observation",
    "status": "final",
    "identifier": [{"system": "urn:lab", "value": "7|7"}],
}


class Platform:
    """Returns scripted responses and records the requests."""

    def __init__(self, *answers: UpstreamResponse | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[UpstreamRequest] = []

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, _tokens: Tokens, token: AccessToken
    ) -> UpstreamResponse:
        self.requests.append(outgoing)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Tokens:
    """Always has a token."""

    name = "default"
    wait_for_token = replace_rejected = invalidate = on_fresh_token_rejected = None

    def current(self) -> str:
        return "default"


def answer(status: int, body: Any = None, *fields: tuple[bytes, bytes]) -> UpstreamResponse:
    content = b"" if body is None else json.dumps(body).encode()
    return UpstreamResponse.synthetic(status, [JSON, *fields], content)


def page(status: int) -> UpstreamResponse:
    return UpstreamResponse.synthetic(status, [(b"Content-Type", b"text/html")], b"<html></html>")


class Statement:
    """A CapabilityStatement that declares the same for every type (as `CapabilityCache`)."""

    unavailable_reason = None

    def __init__(self, *conditional: str, parameters: tuple[str, ...] = ("identifier",)) -> None:
        self._declared = TypeCapability(dict.fromkeys(parameters, ""), frozenset(conditional))

    async def declared_capability(self, resource: str, max_wait: float) -> TypeCapability:
        return self._declared


def new_sender(
    platform: Platform,
    *,
    versions: bool = False,
    statement: Statement | CapabilityCache | None = None,
    unfiltered: tuple[str, ...] = (),
) -> EntrySender:
    client = PlatformClient(platform, "/r5")  # type: ignore[arg-type]
    return EntrySender(
        tokens={"default": Tokens()},  # type: ignore[dict-item]
        client=client,
        statement=statement or Statement(),  # type: ignore[arg-type]
        condition_guard=None,
        record=lambda signal, status, credential: None,
        fhir=FhirSettings(auto_if_match=versions, unfiltered={"Observation": unfiltered}),
        serial_executor=SerialExecutor(),
        wall_clock=time.time,
    )


def request(
    method: str = "POST", body: Any = SENT, credential: str = "default", condition: bytes = b""
) -> QueuedRequest:
    by_id = method != "POST"
    return QueuedRequest(
        method=method,
        target_suffix="/Observation/5" if by_id else "/Observation",
        fields=(JSON, *([(b"If-None-Exist", condition)] if condition else ())),
        body=json.dumps(body).encode(),
        credential=credential,
        interaction="update" if by_id else "create",
        resource="Observation",
        resource_id="5" if by_id else None,
        request_id="r",
    )


def bundle(kind: str, *resources: Any) -> QueuedRequest:
    """Return a queued Bundle: an update, and conditional creates of these resources."""
    entries = [
        {
            "request": {"method": "POST", "url": "Observation", "ifNoneExist": "code=a"},
            "resource": resource,
        }
        for resource in resources
    ]
    update = {"request": {"method": "PUT", "url": "Patient/5"}, "resource": {}}
    body = {"resourceType": "Bundle", "type": kind, "entry": [update, *entries]}
    return replace(request(body=body), interaction=kind, resource="", target_suffix="")


def searchset(
    *resources: Any, total: int | None = None, url: str = "?identifier=x"
) -> UpstreamResponse:
    entries = [{"resource": each} for each in resources]
    body: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "self", "url": f"http://p/r5/Observation{url}"}],
        "entry": entries,
    }
    return answer(200, body if total is None else {**body, "total": total})


STORED = {**SENT, "id": "9", "meta": {"versionId": "3"}}


OTHER = {**STORED, "status": "amended"}


def packed(coding: bytes, pack: Callable[[bytes], bytes]) -> UpstreamResponse:
    return UpstreamResponse.synthetic(
        200, [JSON, (b"Content-Encoding", coding)], pack(json.dumps(STORED).encode())
    )


@pytest.mark.parametrize(
    ("method", "given", "verdict"),
    [
        ("POST", searchset(STORED), PRESENT),
        ("POST", searchset(), ABSENT),
        # Two results may share the number of an order.
        ("POST", searchset(OTHER), INCONCLUSIVE),
        ("POST", searchset(STORED, {**STORED, "id": "10"}), INCONCLUSIVE),
        # The server has ignored the parameter.
        ("POST", searchset({**STORED, "identifier": []}), INCONCLUSIVE),
        ("POST", searchset(url="?_count=2"), INCONCLUSIVE),
        ("POST", searchset(total=3), INCONCLUSIVE),
        # It does not search, or refuses to.
        ("POST", answer(200, SENT), INCONCLUSIVE),
        *(("POST", answer(status), INCONCLUSIVE) for status in (403, 404, 501, 505)),
        ("POST", page(403), INCONCLUSIVE),
        ("PUT", answer(200, STORED), PRESENT),
        ("PUT", packed(b"gzip", gzip.compress), PRESENT),
        ("PUT", packed(b"x-gzip", gzip.compress), PRESENT),
        ("PUT", packed(b"deflate", zlib.compress), PRESENT),
        ("PUT", answer(200, OTHER), ABSENT),
        ("PUT", answer(404), ABSENT),
        ("PUT", answer(403), INCONCLUSIVE),
    ],
)
async def test_a_write_is_verified_by_what_the_platform_has(
    method: str, given: UpstreamResponse, verdict: VerificationStatus
) -> None:
    platform = Platform(given)
    finding = await new_sender(platform).verify(ENTRY, request(method))
    assert finding.finding is verdict
    if method == "PUT":
        return
    searched = b"/r5/Observation?identifier=urn%3Alab%7C7%5C%7C7&"
    assert platform.requests[0].target.startswith(searched)
    if verdict is PRESENT:
        assert finding.response is not None
        assert dict(finding.response.fields)[b"Location"] == b"Observation/9"


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize(
    ("given", "status", "is_outage"),
    [
        *((answer, 408, False), (answer, 500, False), (page, 500, False)),
        *((page, 502, True), (answer, 503, True), (answer, 504, True)),
    ],
)
async def test_a_verification_that_fails_at_the_platform_is_repeated(
    given: Callable[[int], UpstreamResponse], status: int, is_outage: bool, method: str
) -> None:
    """As a delivery would be. The entry becomes unclear only by an inconclusive response."""
    result = await new_sender(Platform(given(status))).verify(ENTRY, request(method))
    decision = decide_on_finding(ENTRY, result)
    assert decision is not None
    assert (decision.state, decision.response) == (EntryState.WAITING, None)
    assert decision.affects_all_entries == result.is_outage == is_outage


PLAIN: dict[str, Any] = {name: each for name, each in SENT.items() if name != "identifier"}
CODE = b"code=a|1"


async def test_a_declared_condition_needs_no_verification() -> None:
    platform = Platform()
    sender = new_sender(platform, statement=Statement("create"))
    for queued in (request(body=PLAIN, condition=CODE), bundle("batch", PLAIN)):
        assert await sender.verify(ENTRY, queued) == AttemptResult(finding=SAFE)
    assert platform.requests == []


CODED = {"statement": Statement(parameters=("code",))}
UNDECLARED = {"statement": Statement(parameters=())}
KEPT = {**PLAIN, "id": "9"}


@pytest.mark.parametrize(
    ("condition", "body", "answers", "more", "expected"),
    [
        (CODE, PLAIN, [searchset(KEPT, url="?code=a%7C1")], CODED, PRESENT),
        (CODE, PLAIN, [searchset(url="?code=a%7C1")], CODED, ABSENT),
        # The server ignored the condition, so that an empty result proves nothing.
        (CODE, PLAIN, [searchset(url="?_count=2")], CODED, INCONCLUSIVE),
        (CODE, PLAIN, [searchset(KEPT, url="?_count=2")], CODED, INCONCLUSIVE),
        (
            CODE,
            PLAIN,
            [searchset({**PLAIN, "status": "amended"}, url="?code=a")],
            CODED,
            INCONCLUSIVE,
        ),
        # No match proves nothing where the search is not to be relied on; a match does.
        (CODE, SENT, [searchset()], {"unfiltered": ("identifier",)}, INCONCLUSIVE),
        (CODE, SENT, [searchset()], UNDECLARED, INCONCLUSIVE),
        (CODE, SENT, [searchset(STORED)], UNDECLARED, PRESENT),
        # Not searched at all: neither a match nor an empty result would prove anything.
        (CODE, PLAIN, [], UNDECLARED, INCONCLUSIVE),
        (CODE, PLAIN, [], {**CODED, "unfiltered": ("code",)}, INCONCLUSIVE),
        (b"code=1&date=2", PLAIN, [], CODED, INCONCLUSIVE),
        (
            b"patient.identifier=1",
            PLAIN,
            [],
            {"statement": Statement(parameters=("patient",))},
            INCONCLUSIVE,
        ),
        (b"_has:x:y:z=1", PLAIN, [], CODED, INCONCLUSIVE),
    ],
)
async def test_other_conditions_are_verified_by_a_search(
    condition: bytes,
    body: dict[str, Any],
    answers: list[UpstreamResponse],
    more: dict[str, Any],
    expected: VerificationStatus,
) -> None:
    platform = Platform(*answers)
    queued = request(body=body, condition=condition)
    finding = await new_sender(platform, **more).verify(ENTRY, queued)
    assert (finding.finding, len(platform.requests)) == (expected, len(answers))


DECLARING = {
    "resourceType": "CapabilityStatement",
    "rest": [{"resource": [{"type": "Observation", "conditionalCreate": True}]}],
}
UNREACHABLE = GatewayError(errors.UPSTREAM_UNREACHABLE)


def sender_with_statement(platform: Platform) -> EntrySender:
    """Return a sender that fetches the CapabilityStatement; its clock stands still."""
    client = PlatformClient(platform, "/r5")  # type: ignore[arg-type]
    return new_sender(
        platform, statement=CapabilityCache(client, lambda: [Tokens()], lambda: 0.0, None)
    )


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        (UNREACHABLE, "upstream-unreachable"),
        *((answer(status), "upstream-busy") for status in (408, 425, 429, 500, 502, 503, 504)),
    ],
)
async def test_verification_waits_for_the_capability_statement(
    statement: UpstreamResponse | Exception, cause: str
) -> None:
    platform = Platform(statement, searchset(), answer(200, DECLARING))
    sender = sender_with_statement(platform)
    queued = request(condition=CODE)
    result = await sender.verify(ENTRY, queued)
    assert result == AttemptResult(cause=cause, affects_all_entries=False)
    assert await sender.verify(ENTRY, queued) == AttemptResult(finding=SAFE)


class FetchingPlatform(Platform):
    """A platform during whose response to a search the CapabilityStatement is fetched."""

    statement: CapabilityCache

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, tokens: Tokens, token: AccessToken
    ) -> UpstreamResponse:
        answer = await super().send(exchange, outgoing, tokens, token)
        if b"?" in outgoing.target:
            await self.statement.declared_capability("Observation", 10.0)
        return answer


async def test_a_statement_fetched_during_the_search_leads_to_another_verification() -> None:
    """The search was evaluated without the statement, so that it was inconclusive."""
    platform = FetchingPlatform(UNREACHABLE, searchset(), answer(200, DECLARING))
    client = PlatformClient(platform, "/r5")  # type: ignore[arg-type]
    platform.statement = CapabilityCache(client, lambda: [Tokens()], lambda: 0.0, None)  # type: ignore[arg-type]
    sender = new_sender(platform, statement=platform.statement)
    queued = request(condition=CODE)
    assert await sender.verify(ENTRY, queued) == AttemptResult(
        cause="upstream-unreachable", affects_all_entries=False
    )
    assert await sender.verify(ENTRY, queued) == AttemptResult(finding=SAFE)


async def test_a_match_needs_no_capability_statement() -> None:
    finding = await sender_with_statement(Platform(UNREACHABLE, searchset(STORED))).verify(
        ENTRY, request()
    )
    assert finding.finding is PRESENT


@pytest.mark.parametrize("response", [answer(404), answer(501), page(200)])
async def test_verification_without_a_capability_statement_is_inconclusive(
    response: UpstreamResponse,
) -> None:
    sender = sender_with_statement(Platform(response, searchset()))
    result = await sender.verify(ENTRY, request(condition=CODE))
    assert result == AttemptResult(finding=INCONCLUSIVE)


@pytest.mark.parametrize(
    ("kind", "answers", "expected"),
    [
        ("transaction", (searchset(STORED), searchset(STORED)), PRESENT),
        ("transaction", (searchset(), searchset()), ABSENT),
        ("transaction", (searchset(), searchset(STORED)), INCONCLUSIVE),
        # The search does not show whether the update in the batch took effect.
        ("batch", (searchset(STORED), searchset(STORED)), INCONCLUSIVE),
        ("batch", (searchset(), searchset()), ABSENT),
    ],
)
async def test_a_bundle_is_verified_by_all_its_creates(
    kind: str, answers: tuple[UpstreamResponse, ...], expected: VerificationStatus
) -> None:
    finding = await new_sender(Platform(*answers)).verify(ENTRY, bundle(kind, SENT, SENT))
    assert finding.finding is expected


@pytest.mark.parametrize(("creates", "searches"), [(16, 16), (17, 0)])
async def test_a_bundle_is_verified_by_at_most_16_searches(creates: int, searches: int) -> None:
    platform = Platform(*(searchset() for _ in range(creates)))
    finding = await new_sender(platform).verify(ENTRY, bundle("transaction", *[SENT] * creates))
    assert (len(platform.requests), finding.finding) == (
        searches,
        ABSENT if searches else INCONCLUSIVE,
    )


@pytest.mark.parametrize(
    ("given", "effect", "cause", "is_for_all"),
    [
        (GatewayError(errors.UPSTREAM_UNREACHABLE), "none", "upstream-unreachable", True),
        (GatewayError(errors.CIRCUIT_OPEN), "none", "circuit-open", True),
        (GatewayError(errors.SSO_UNAVAILABLE), "none", "sso-unavailable", True),
        (GatewayError(errors.TOKEN_REFUSED), "none", "token-refused", False),
        (GatewayError(errors.TOKEN_REJECTED), "none", "token-rejected", False),
        (GatewayError(errors.UPSTREAM_TIMEOUT), "unknown", "upstream-timeout", True),
        (GatewayError(errors.UPSTREAM_FAILED), "unknown", "upstream-failed", True),
        (RuntimeError("Patient/5"), "unknown", "internal", False),
        (answer(429), "none", "upstream-busy", False),
        (answer(503), "none", "upstream-busy", True),
        (page(503), "none", "upstream-busy", True),
        (page(200), "unknown", "upstream-non-fhir", True),
        (page(407), "none", "upstream-unreachable", True),
        (page(511), "none", "upstream-unreachable", True),
        (answer(302), "none", "upstream-redirect", True),
        (answer(303), "unknown", "upstream-redirect", True),
    ],
)
async def test_each_failure_has_its_effect_and_scope(
    given: UpstreamResponse | Exception, effect: str, cause: str, is_for_all: bool
) -> None:
    result = await new_sender(Platform(given)).send(ENTRY, request())
    assert (result.may_have_effect, result.cause, result.affects_all_entries) == (
        effect == "unknown",
        cause,
        is_for_all,
    )


@pytest.mark.parametrize(
    ("given", "pause"),
    [
        (answer(429, None, (b"Retry-After", b"7")), 7),
        # The gateway's own Retry-After is for callers: the delivery has its own backoff.
        (GatewayError(errors.UPSTREAM_UNREACHABLE, retry_after=5), None),
    ],
    ids=["platform", "gateway"],
)
async def test_only_the_platforms_retry_after_is_used(
    given: UpstreamResponse | Exception, pause: float | None
) -> None:
    result = await new_sender(Platform(given)).send(ENTRY, request())
    assert result.cause
    assert result.retry_after == pause


async def test_a_response_keeps_status_body_and_location() -> None:
    fields = ((b"Location", b"http://p/r5/Observation/5/_history/1"), (b"Set-Cookie", b"a=b"))
    result = (
        await new_sender(Platform(answer(201, STORED, *fields))).send(ENTRY, request())
    ).response
    assert result is not None
    assert (result.status, json.loads(result.body)) == (201, STORED)
    assert [name for name, _ in result.fields] == [b"Content-Type", b"Location"]


async def test_an_html_error_is_reported_without_the_page() -> None:
    result = (await new_sender(Platform(page(403))).send(ENTRY, request())).response
    assert result is not None
    assert (result.status, result.reason, result.body) == (403, "upstream-non-fhir", b"")


async def test_a_removed_credential_delivers_nothing() -> None:
    platform = Platform()
    result = await new_sender(platform).send(ENTRY, request(credential="old"))
    assert (result.may_have_effect, result.cause) == (False, "token-refused")
    assert platform.requests == []


async def test_auto_if_match_adds_the_current_version() -> None:
    platform = Platform(answer(200, STORED, (b"ETag", b'W/"3"')), answer(412))
    result = await new_sender(platform, versions=True).send(ENTRY, request("PUT"))
    assert b'If-Match: W/"3"\r\n' in platform.requests[1].field_lines
    assert result.cause
    assert not result.may_have_effect


@pytest.mark.parametrize("body", [b"", b"ok", b"{}", b'{"success":false,"errors":[]}', b"[]"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_verification_is_repeated_after_a_response_that_is_no_fhir(
    method: str, body: bytes
) -> None:
    finding = await new_sender(Platform(UpstreamResponse.synthetic(200, [JSON], body))).verify(
        ENTRY, request(method)
    )
    assert finding.cause == "upstream-non-fhir"
