"""Which fields of a request are forwarded, and where the others are reported."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from gateway.telemetry.logs import configure
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, ReceivedRequest
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get, post
from tests.pipeline import shared

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway

# What the standards define for a request, as contract and documents list it.
DEFINED = (
    *("Accept", "Accept-Charset", "Accept-Language", "Cache-Control", "Content-Digest"),
    *("Content-Disposition", "Content-Encoding", "Content-Language", "Content-MD5"),
    *("Content-Type", "Date", "Digest", "If-Match", "If-Modified-Since", "If-None-Exist"),
    *("If-None-Match", "If-Range", "If-Unmodified-Since", "Max-Forwards", "Pragma", "Prefer"),
    *("Range", "Repr-Digest", "User-Agent", "Want-Content-Digest", "Want-Repr-Digest"),
    *(
        "Want-Unencoded-Digest",
        "Want-Digest",
        "Warning",
        "X-Provenance",
        "X-Security-Context",
        "X-Correlation-Id",
    ),
    *("traceparent", "tracestate", "baggage"),
)
# By these a server may take the caller for another, or the request for another. The list proves
# nothing: none of its names is known to the gateway.
OF_SERVERS = (
    *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Original-URL", "Proxy"),
    *("X-Original-URI", "X-Rewrite-URL", "X-Forwarded", "X-Forwarded-Host", "X-Forwarded-User"),
    *("X-Forwarded-Client-Cert", "Forwarded", "X-Remote-User", "Remote-User", "X-SSL-Client-S-DN"),
    *("X-Real-IP", "True-Client-IP", "CF-Access-Jwt-Assertion", "X-WebAuth-User", "Client-Cert"),
    *("X-MS-CLIENT-PRINCIPAL-NAME", "X-Amzn-Oidc-Data", "OIDC-CLAIM-sub", "iv-user", "SM-USER"),
    *("X-JWT-Assertion", "JWT", "X-Access-Token", "X-User-Info", "X-Authorization", "$WSRA"),
    *("X-Medplum-On-Behalf-Of", "Impersonate-User", "Sudo", "Act-As", "Run-As", "doAs"),
    *("X-Switch-User", "Dropbox-API-Select-User", "MSCRMCallerID", "X-Host", "Via"),
    *("X-Auth-Token", "X-User-Id", "X-Delegated-User", "X-Masquerade", "X-Assume-Role"),
    *("X-Acting-For", "X-Tenant-Id", "X-Patient", "X-Scope", "X-Role", "From", "Referer"),
    *("SOAPAction", "Link", "Cookie2", "Content-Type-Options", "If", "If-Lab"),
    *("Accept-Encodings", "Max-Forward", "X-Provenances", "Trace-Parent", "Sec-Fetch-User"),
    *("X-Intermediary", "X-B3-TraceId", "Idempotency-Key", "DNT", "Priority", "X-Requested-With"),
)
FORWARDED_BY = "platform.forward_headers"


def spellings(name: str) -> Iterator[str]:
    """Return a field's name in the spellings that servers may treat alike."""
    for separator in "-_.!~":
        spelt = name.replace("-", separator)
        yield from (spelt, spelt.upper(), spelt.lower(), spelt.swapcase())


async def forwarded(gateway: RunningGateway, platform: Platform, fields: Iterable[str]) -> set[str]:
    """Return the names of the fields that the platform received, as they were written."""
    fields = list(dict.fromkeys(fields))
    for start in range(0, len(fields), 80):
        lines = [f"{name}: 1" for name in fields[start : start + 80]]
        assert (await fetch(gateway.address, get("/fhir/Patient/1", *lines))).status == 200
    seen = {
        name for request in platform.requests for name, value in request.headers if value == "1"
    }
    return seen & set(fields)


async def reported_fields(gateway: RunningGateway) -> list[dict[str, Any]]:
    facts = gateway.gateway.status.facts("en")
    assert json.dumps(facts)
    return list(facts["fields_not_forwarded"])


def fields_of(seen: ReceivedRequest, *names: str) -> list[tuple[str, str]]:
    return [field for field in seen.headers if field[0].lower() in map(str.lower, names)]


@pytest.mark.parametrize("name", DEFINED)
async def test_defined_fields_arrive_octet_for_octet(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    """In any case of letters, with unusual values, and repeated in order where that is valid."""
    value = "application/fhir+json" if name == "Content-Type" else '"7" ;x=\t,, 1'
    sent = [(name, value), (name.swapcase(), value), (name.upper(), value)]
    if name in ("Content-Type", "Max-Forwards", "User-Agent"):
        sent = sent[1:2]
    lines = [f"{each}: {value}" for each, value in sent]
    await fetch(gateway.address, post("/fhir/Basic", b"no URL", *lines))
    assert fields_of(platform.requests[0], name) == sent


async def test_fields_that_are_not_listed_are_not_forwarded(
    gateway: RunningGateway, platform: Platform
) -> None:
    """Whether servers know them or not, however spelled."""
    fields = [each for name in OF_SERVERS for each in spellings(name)]
    assert await forwarded(gateway, platform, fields) == set()


async def test_lookalikes_of_defined_fields_are_not_forwarded(
    gateway: RunningGateway, platform: Platform
) -> None:
    """A server may fold such a name into one that the gateway checks or sets."""
    names = (*DEFINED, "X-Request-Id", "X-Api-Key", "Host", "Authorization")
    fields = [each for name in names if "-" in name for each in spellings(name) if "-" not in each]
    assert await forwarded(gateway, platform, fields) == set()


async def test_forward_headers_adds_names_and_prefixes(start_gateway, platform: Platform) -> None:
    """In any case of letters, and nothing else."""
    listed = ["X-Lab-Number", "x-hospital-*", "X_Old", "X-Auth-Token"]
    wanted = ["X-Lab-Number", "x-LAB-number", "X-Hospital-Ward", "X-HOSPITAL-", "x_old"]
    wanted += ["X-Hospital-Forwarded_For", "X-Auth-Token"]
    others = ["X-Lab-Numbers", "X_Lab_Number", "X_Hospital_Ward", "X-Hospital", "X-Old", "X-Ward"]
    async with start_gateway(platform={"forward_headers": listed}) as gateway:
        assert await forwarded(gateway, platform, [*wanted, *others, *OF_SERVERS]) == set(wanted)
        lines = ["x-lab-number: 1", "X-LAB-Number:  2 ", "X-Lab-Number: 1"]
        await fetch(gateway.address, get("/fhir/Patient/1", *lines))
    seen = fields_of(platform.requests[-1], "x-lab-number")
    assert seen == [("x-lab-number", "1"), ("X-LAB-Number", "2"), ("X-Lab-Number", "1")]


async def test_fields_that_the_gateway_uses_are_never_forwarded(
    start_gateway, platform: Platform
) -> None:
    """User, purpose and key of the caller, and fields that Connection names."""
    caller = {"name": "lab", "api_key": "planted-key", "user_header": "X-Hospital-User"}
    caller |= {"purpose_header": "X-Hospital-Why-Not"}
    lines = ["X-Api-Key: planted-key", "X-Hospital-User: a", "X-Hospital-Why_Not: TREAT"]
    lines += ["X-Hospital-Ward: 7", "Connection: x-hospital-bed, Date", "X-Hospital-Bed: 8"]
    lines += ["Date: 9", "Cookie: a=b"]
    listed = {"forward_headers": ["X-Hospital-*"]}
    async with start_gateway(platform=listed, callers=[caller]) as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1", *lines))
        assert await reported_fields(gateway) == []
    names = {name.lower() for name, _ in platform.requests[0].headers}
    own = {"host", "authorization", "accept-encoding", "via", "x-request-id"}
    assert names == {*own, "x-hospital-ward"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
async def test_content_fields_are_forwarded_with_the_content_only(
    gateway: RunningGateway, platform: Platform, method: str
) -> None:
    lines = ["Content-Type: text/plain", "content-MD5: x", "Digest: x", "REPR-digest: x"]
    lines += ["Content-Digest: x", "Want-Digest: x", "Content-Language: uz"]
    request = post("/fhir/Patient/1", b"surplus", *lines).replace(b"POST", method.encode(), 1)
    async with await Wire.open(gateway.address) as wire:
        await wire.send(request)
        assert (await wire.read_response(head=method == "HEAD")).status == 200
    (seen,) = platform.requests
    names = {name.lower() for name, _ in seen.headers if "digest" in name.lower()}
    assert (names, seen.body, seen.header("content-type")) == ({"want-digest"}, b"", None)


async def test_each_name_is_logged_once_for_each_caller(start_gateway, platform: Platform) -> None:
    """With the setting; status page and metric count all of them."""
    log = io.StringIO()
    callers = [{"name": each, "api_key": f"planted-key-{each}"} for each in ("lab", "his")]
    restore = configure("info", "json", log)
    try:
        async with start_gateway(callers=callers) as gateway:
            for name in ("lab", "lab", "his"):
                key = f"X-Api-Key: planted-key-{name}"
                lines = ("X-Lab-Number: planted-value", "X-Lab-Number: 2", "X-Original-URL: /")
                for sent in (lines, [each.lower() for each in lines]):
                    reply = await fetch(gateway.address, get("/fhir/Patient/1", key, *sent))
                    assert reply.status == 200
            facts = await reported_fields(gateway)
            _, page = await gateway.admin_page("/status")
            for caller, number in (("lab", 8), ("his", 4)):
                metric = "dhp_gateway_fields_not_forwarded_total"
                assert await gateway.metric(metric, caller=caller) == number
    finally:
        restore()
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    logged = [(line["caller"], line["event"]) for line in lines if "not sent" in line["event"]]
    assert logged == [
        (caller, text)
        for caller in ("lab", "his")
        for text in (
            f"the field X-Lab-Number is not sent to the platform: {FORWARDED_BY} can forward it",
            "the field X-Original-URL is not sent to the platform: no setting forwards it",
        )
    ]
    assert {line["level"] for line in lines if "not sent" in line["event"]} == {"info"}
    assert facts == [
        {"caller": caller, "name": name, "requests": requests, "setting": setting}
        for caller, requests in (("lab", 4), ("his", 2))
        for name, setting in (("X-Lab-Number", FORWARDED_BY), ("X-Original-URL", None))
    ]
    assert "<code>X-Lab-Number</code>" in page
    assert f"<code>{FORWARDED_BY}</code>" in page
    assert "planted" not in log.getvalue() + page


async def test_a_hundred_names_of_a_caller_are_reported(start_gateway, platform: Platform) -> None:
    """The page shows the most frequent ones."""
    names = [f"X-{number}" for number in range(150)]
    async with start_gateway() as gateway:
        for part in (names[:75], names[75:], names[:1]):
            lines = [f"{name}: 1" for name in part]
            await fetch(gateway.address, get("/fhir/Patient/1", *lines))
        facts = await reported_fields(gateway)
        assert [(each["name"], each["requests"]) for each in facts[:2]] == [("X-0", 2), ("X-1", 1)]
        assert {each["name"] for each in facts} == set(names[:100])
        _, page = await gateway.admin_page("/status")
        assert await gateway.metric("dhp_gateway_fields_not_forwarded_total") == 151
    assert page.count("<code>X-") == 20
    assert "80 more" in page


async def test_names_that_may_be_values_are_masked(start_gateway, platform: Platform) -> None:
    """An impossible name is truncated; one like a patient's number is masked."""
    odd = ["e" * 65, "a!" + "b" * 20, "12345678901234"]
    async with start_gateway() as gateway:
        await fetch(gateway.address, get("/fhir/Patient/1", *(f"{name}: 1" for name in odd)))
        facts = await reported_fields(gateway)
    assert [each["name"] for each in facts] == ["eeeeeeee…", "a!bbbbbb…", "***"]
    assert [each["setting"] for each in facts[:2]] == [None, None]


async def test_a_field_that_a_reload_forwards_is_reported_no_more(
    start_gateway, platform: Platform
) -> None:
    async with start_gateway() as gateway:
        lines = ["X-Lab-Number: 1", "X-Ward: 1"]
        await fetch(gateway.address, get("/fhir/Patient/1", *lines))
        assert [each["name"] for each in await reported_fields(gateway)] == [
            "X-Lab-Number",
            "X-Ward",
        ]
        platform_settings = gateway.settings.platform.model_copy(
            update={"forward_headers": ("x-LAB-*",)}
        )
        gateway.gateway.settings = gateway.settings.model_copy(
            update={"platform": platform_settings}
        )
        assert [each["name"] for each in await reported_fields(gateway)] == ["X-Ward"]


async def test_fields_of_rejected_requests_are_not_reported(
    start_gateway, platform: Platform, sso: Sso
) -> None:
    caller = {"name": "lab", "networks": ["127.0.0.0/8"], "allow": {"interactions": ["read"]}}
    async with start_gateway(callers=[caller]) as gateway:
        reply = await fetch(gateway.address, post("/fhir/Patient", b"{}", "X-Lab-Number: 1"))
        assert reply.status == 403
        assert await reported_fields(gateway) == []
