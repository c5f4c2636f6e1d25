"""What the platform's answers mean for a queued write, and whether it has one already."""

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
from gateway.outbox.attempt_result import AttemptResult, VerificationStatus
from gateway.outbox.entry import (
    EntryState,
    OutboxEntry,
    QueuedRequest,
    RecoveryMode,
)
from gateway.outbox.platform_sender import EntrySender
from gateway.pipeline.body_worker import SerialExecutor
from gateway.pipeline.platform_client import CapabilityCache as Fetched
from gateway.pipeline.platform_client import PlatformClient
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
    """Gives out the next answer, and keeps what it was asked."""

    def __init__(self, *answers: UpstreamResponse | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[UpstreamRequest] = []

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, _tokens: Tokens, token: AccessToken
    ) -> UpstreamResponse:
        """As the forwarder."""
        self.requests.append(outgoing)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Tokens:
    """There is always one."""

    name = "default"
    wait_for_token = replace_rejected = invalidate = on_fresh_token_rejected = None

    def current(self) -> str:
        """Return any token, which is not examined."""
        return "default"


def answer(status: int, body: Any = None, *fields: tuple[bytes, bytes]) -> UpstreamResponse:
    """A FHIR answer."""
    content = b"" if body is None else json.dumps(body).encode()
    return UpstreamResponse.synthetic(status, [JSON, *fields], content)


def page(status: int) -> UpstreamResponse:
    """An HTML page."""
    return UpstreamResponse.synthetic(status, [(b"Content-Type", b"text/html")], b"<html></html>")


class Statement:
    """What the platform declares of every type."""

    unavailable_reason = None

    def __init__(self, *conditional: str, parameters: tuple[str, ...] = ("identifier",)) -> None:
        self._declared = TypeCapability(dict.fromkeys(parameters, ""), frozenset(conditional))

    async def declared_capability(self, resource: str, longest_wait: float) -> TypeCapability:
        """As the statement on the request path."""
        return self._declared


def deliverer(
    platform: Platform,
    *,
    versions: bool = False,
    statement: Statement | Fetched | None = None,
    unfiltered: tuple[str, ...] = (),
) -> EntrySender:
    """What is tested, with one credential."""
    asking = PlatformClient(platform, "/r5")  # type: ignore[arg-type]
    return EntrySender(
        forwarder=platform,
        tokens={"default": Tokens()},  # type: ignore[dict-item]
        client=asking,
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
    """A queued create, or an update."""
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
        gateway_base="",
    )


def bundle(kind: str, *resources: Any) -> QueuedRequest:
    """A queued Bundle: an update, and these to be created on a condition."""
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
    """What a search finds."""
    entries = [{"resource": each} for each in resources]
    bundle: dict[str, Any] = {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "self", "url": f"http://p/r5/Observation{url}"}],
        "entry": entries,
    }
    return answer(200, bundle if total is None else {**bundle, "total": total})


KEPT = {**SENT, "id": "9", "meta": {"versionId": "3"}}


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ((KEPT,), PRESENT),
        ((), ABSENT),
        # Two results may share the number of an order.
        (({**KEPT, "status": "amended"},), INCONCLUSIVE),
        ((KEPT, {**KEPT, "id": "10"}), INCONCLUSIVE),
        # The server has ignored the parameter.
        (({**KEPT, "identifier": []},), INCONCLUSIVE),
    ],
)
async def test_a_create_is_looked_for_by_its_identifier(
    found: tuple[Any, ...], verdict: VerificationStatus
) -> None:
    """Only the very same content counts as the write itself."""
    platform = Platform(searchset(*found))
    finding = await deliverer(platform).verify(ENTRY, request())
    assert finding.finding is verdict
    assert platform.requests[0].target.startswith(
        b"/r5/Observation?identifier=urn%3Alab%7C7%5C%7C7&"
    )
    if verdict is PRESENT:
        assert finding.response is not None
        assert dict(finding.response.fields)[b"Location"] == b"Observation/9"


async def test_a_search_that_was_not_made_finds_nothing_out() -> None:
    """Neither a self link without the parameter nor matches that are not shown mean "no"."""
    for odd in (searchset(url="?_count=2"), searchset(total=3), answer(404), answer(200, SENT)):
        finding = await deliverer(Platform(odd)).verify(ENTRY, request())
        assert finding.finding is not None
        assert finding.finding is INCONCLUSIVE


PLAIN: dict[str, Any] = {name: each for name, each in SENT.items() if name != "identifier"}
CODE = b"code=a|1"


async def asked(
    condition: bytes, body: Any, *answers: UpstreamResponse, **more: Any
) -> tuple[VerificationStatus, int]:
    """What is found out of a conditional create, and by how many questions."""
    platform = Platform(*answers)
    finding = await deliverer(platform, **more).verify(
        ENTRY, request(body=body, condition=condition)
    )
    assert finding.finding is not None
    return finding.finding, len(platform.requests)


async def test_a_declared_condition_needs_no_question() -> None:
    """The platform itself sees to it that there are not two, also of a Bundle's."""
    platform = Platform()
    made = deliverer(platform, statement=Statement("create"))
    for wanted in (request(body=PLAIN, condition=CODE), bundle("batch", PLAIN)):
        assert await made.verify(ENTRY, wanted) == AttemptResult(finding=SAFE)
    assert platform.requests == []


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ((searchset({**PLAIN, "id": "9"}, url="?code=a%7C1"),), PRESENT),
        ((searchset(url="?code=a%7C1"),), ABSENT),
        # What it did not look for it has not missed.
        ((searchset(url="?_count=2"),), INCONCLUSIVE),
        ((searchset({**PLAIN, "id": "9"}, url="?_count=2"),), INCONCLUSIVE),
        (
            (searchset({**PLAIN, "status": "amended"}, url="?code=a"),),
            INCONCLUSIVE,
        ),
    ],
)
async def test_other_conditions_are_asked_as_a_search(
    answers: tuple[UpstreamResponse, ...], expected: VerificationStatus
) -> None:
    """By all parameters of the condition, where the platform declares them."""
    found = await asked(CODE, PLAIN, *answers, statement=Statement(parameters=("code",)))
    assert found == (expected, 1)


@pytest.mark.parametrize(
    ("condition", "more"),
    [
        (CODE, {"statement": Statement(parameters=())}),
        (CODE, {"statement": Statement(parameters=("code",)), "unfiltered": ("code",)}),
        (b"code=1&date=2", {"statement": Statement(parameters=("code",))}),
        (b"patient.identifier=1", {"statement": Statement(parameters=("patient",))}),
        (b"_has:x:y:z=1", {"statement": Statement(parameters=("code",))}),
    ],
)
async def test_a_condition_that_cannot_be_believed_is_not_asked(
    condition: bytes, more: dict[str, Any]
) -> None:
    """Neither a match nor that there is none would prove anything."""
    assert await asked(condition, PLAIN, **more) == (INCONCLUSIVE, 0)


@pytest.mark.parametrize(
    ("found", "more", "expected"),
    [
        ((), {"unfiltered": ("identifier",)}, INCONCLUSIVE),
        ((), {"statement": Statement(parameters=())}, INCONCLUSIVE),
        ((KEPT,), {"statement": Statement(parameters=())}, PRESENT),
    ],
)
async def test_no_match_proves_nothing_where_the_search_is_not_believed(
    found: tuple[Any, ...], more: dict[str, Any], expected: VerificationStatus
) -> None:
    """A match with the same identifier and content does."""
    assert await asked(CODE, SENT, searchset(*found), **more) == (expected, 1)


DECLARING = {
    "resourceType": "CapabilityStatement",
    "rest": [{"resource": [{"type": "Observation", "conditionalCreate": True}]}],
}
UNREACHABLE = GatewayError(errors.UPSTREAM_UNREACHABLE)


def fetching(platform: Platform) -> EntrySender:
    """Asks the platform itself what it declares; no time passes."""
    client = PlatformClient(platform, "/r5")  # type: ignore[arg-type]
    return deliverer(platform, statement=Fetched(client, lambda: [Tokens()], lambda: 0.0))


@pytest.mark.parametrize(
    ("statement", "cause"),
    [
        (UNREACHABLE, "upstream-unreachable"),
        *((answer(status), "upstream-busy") for status in (429, 502, 503, 504)),
    ],
)
async def test_what_the_statement_may_still_tell_waits_for_it(
    statement: UpstreamResponse | Exception, cause: str
) -> None:
    """Where it could not be had it is asked for with each attempt, and no person before that."""
    platform = Platform(statement, searchset(), answer(200, DECLARING))
    made = fetching(platform)
    wanted = request(condition=CODE)
    assert await made.verify(ENTRY, wanted) == AttemptResult(cause=cause, affects_all_entries=False)
    assert await made.verify(ENTRY, wanted) == AttemptResult(finding=SAFE)


class FetchingMeanwhile(Platform):
    """While it answers a search, another write has the statement fetched."""

    statement: Fetched

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, tokens: Tokens, token: AccessToken
    ) -> UpstreamResponse:
        """As the forwarder."""
        answer = await super().send(exchange, outgoing, tokens, token)
        if b"?" in outgoing.target:
            await self.statement.declared_capability("Observation", 10.0)
        return answer


async def test_a_statement_that_comes_during_the_search_may_still_tell() -> None:
    """The search was judged without it, so that it has found nothing out."""
    platform = FetchingMeanwhile(UNREACHABLE, searchset(), answer(200, DECLARING))
    client = PlatformClient(platform, "/r5")  # type: ignore[arg-type]
    platform.statement = Fetched(client, lambda: [Tokens()], lambda: 0.0)  # type: ignore[arg-type]
    made = deliverer(platform, statement=platform.statement)
    wanted = request(condition=CODE)
    assert await made.verify(ENTRY, wanted) == AttemptResult(
        cause="upstream-unreachable", affects_all_entries=False
    )
    assert await made.verify(ENTRY, wanted) == AttemptResult(finding=SAFE)


async def test_what_is_found_needs_no_statement() -> None:
    """A match with the same identifier and content is proof by itself."""
    finding = await fetching(Platform(UNREACHABLE, searchset(KEPT))).verify(ENTRY, request())
    assert finding.finding is PRESENT


@pytest.mark.parametrize("none", [answer(404), answer(500), page(200)])
async def test_a_platform_without_statement_leaves_it_unclear(none: UpstreamResponse) -> None:
    """Nothing is to be waited for."""
    made = fetching(Platform(none, searchset()))
    assert await made.verify(ENTRY, request(condition=CODE)) == AttemptResult(finding=INCONCLUSIVE)


@pytest.mark.parametrize(
    ("kind", "answers", "expected"),
    [
        ("transaction", (searchset(KEPT), searchset(KEPT)), PRESENT),
        ("transaction", (searchset(), searchset()), ABSENT),
        ("transaction", (searchset(), searchset(KEPT)), INCONCLUSIVE),
        # The search does not show whether the update in the batch took effect.
        ("batch", (searchset(KEPT), searchset(KEPT)), INCONCLUSIVE),
        ("batch", (searchset(), searchset()), ABSENT),
    ],
)
async def test_a_bundle_is_looked_for_by_all_that_it_creates(
    kind: str, answers: tuple[UpstreamResponse, ...], expected: VerificationStatus
) -> None:
    """And only what they agree on counts."""
    finding = await deliverer(Platform(*answers)).verify(ENTRY, bundle(kind, SENT, SENT))
    assert finding.finding is expected


@pytest.mark.parametrize(
    ("there", "verdict"),
    [
        (answer(200, KEPT), PRESENT),
        (answer(200, {**KEPT, "status": "amended"}), ABSENT),
        (answer(404), ABSENT),
        (answer(403), INCONCLUSIVE),
    ],
)
async def test_an_update_is_compared_with_what_is_there(
    there: UpstreamResponse, verdict: VerificationStatus
) -> None:
    """The same content means that the first attempt had its effect."""
    finding = await deliverer(Platform(there)).verify(ENTRY, request("PUT"))
    assert finding.finding is verdict


@pytest.mark.parametrize(
    ("given", "effect", "cause", "everybody"),
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
async def test_what_is_no_answer_of_the_platform_is_a_failure(
    given: UpstreamResponse | Exception, effect: str, cause: str, everybody: bool
) -> None:
    """With what it may have done, and whether all others would fare the same."""
    result = await deliverer(Platform(given)).send(ENTRY, request())
    assert (result.may_have_effect, result.cause, result.affects_all_entries) == (
        effect == "unknown",
        cause,
        everybody,
    )


@pytest.mark.parametrize(
    ("given", "pause"),
    [
        (answer(429, None, (b"Retry-After", b"7")), 7),
        # It is for callers: the delivery has its own pauses.
        (GatewayError(errors.UPSTREAM_UNREACHABLE, retry_after=5), None),
    ],
    ids=["platform", "gateway"],
)
async def test_only_the_platforms_retry_after_is_passed_on(
    given: UpstreamResponse | Exception, pause: float | None
) -> None:
    """In seconds."""
    result = await deliverer(Platform(given)).send(ENTRY, request())
    assert result.cause
    assert result.retry_after == pause


async def test_an_answer_keeps_only_what_the_caller_may_see() -> None:
    """Status, body, and the fields that say where the resource is."""
    fields = ((b"Location", b"http://p/r5/Observation/5/_history/1"), (b"Set-Cookie", b"a=b"))
    result = (await deliverer(Platform(answer(201, KEPT, *fields))).send(ENTRY, request())).response
    assert result is not None
    assert (result.status, json.loads(result.body)) == (201, KEPT)
    assert [name for name, _ in result.fields] == [b"Content-Type", b"Location"]


async def test_a_page_with_an_error_is_told_as_such() -> None:
    """Without the page."""
    result = (await deliverer(Platform(page(403))).send(ENTRY, request())).response
    assert result is not None
    assert (result.status, result.reason, result.body) == (403, "upstream-non-fhir", b"")


async def test_a_credential_that_is_gone_delivers_nothing() -> None:
    platform = Platform()
    result = await deliverer(platform).send(ENTRY, request(credential="old"))
    assert (result.may_have_effect, result.cause) == (False, "token-refused")
    assert platform.requests == []


async def test_an_update_gets_the_current_version_where_the_settings_say_so() -> None:
    """Asked for at the moment of delivery; who was faster only delays it."""
    platform = Platform(answer(200, KEPT, (b"ETag", b'W/"3"')), answer(412))
    result = await deliverer(platform, versions=True).send(ENTRY, request("PUT"))
    assert b'If-Match: W/"3"\r\n' in platform.requests[1].field_lines
    assert result.cause
    assert not result.may_have_effect


@pytest.mark.parametrize("body", [b"", b"ok", b"{}", b'{"success":false,"errors":[]}', b"[]"])
@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_what_is_no_fhir_finds_nothing_out(method: str, body: bytes) -> None:
    """A success from an intermediary shows nothing about the platform: verification is repeated."""
    finding = await deliverer(Platform(UpstreamResponse.synthetic(200, [JSON], body))).verify(
        ENTRY, request(method)
    )
    assert finding.cause == "upstream-non-fhir"


@pytest.mark.parametrize(
    ("coding", "pack"),
    [(b"gzip", gzip.compress), (b"x-gzip", gzip.compress), (b"deflate", zlib.compress)],
)
async def test_compressed_answers_are_read(coding: bytes, pack: Callable[[bytes], bytes]) -> None:
    """A compressed response, though not requested, is decoded and examined."""
    found = pack(json.dumps(KEPT).encode())
    there = UpstreamResponse.synthetic(200, [JSON, (b"Content-Encoding", coding)], found)
    finding = await deliverer(Platform(there)).verify(ENTRY, request("PUT"))
    assert finding.finding is PRESENT
