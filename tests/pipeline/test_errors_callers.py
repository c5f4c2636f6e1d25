"""Further ways in which a caller's request or its token fails, each held against its row."""

from __future__ import annotations

from typing import Any

import pytest

from tests.doubles import sso as answers
from tests.doubles.platform import fhir, unauthorized
from tests.doubles.processes import free_port
from tests.doubles.wire import get, post
from tests.pipeline.error_table import ERROR_TABLE, judge, read_json
from tests.pipeline.stage import Evidence, Provoke, Stage, reset


async def sending(stage: Stage, raw: bytes, **sections: Any) -> Evidence:
    """These bytes to a gateway with some settings changed."""
    return await stage.evidence(await stage.start(**sections), raw)


BAD = {
    "broken escape": get("/fhir/Patient/%zz"),
    "encoded slash": get("/fhir/Patient%2F1"),
    "encoded dots": get("/fhir/%252e%252e/admin"),
    "no host": b"GET /fhir/Patient/1 HTTP/1.1\r\n\r\n",
    "two hosts": get("/fhir/Patient/1", "Host: other"),
    "length without digits": get("/fhir/Patient", "Content-Length: abc", method="POST"),
    "gzip, chunked": get("/fhir/Patient", "Transfer-Encoding: gzip, chunked", method="POST"),
}


@pytest.mark.parametrize("name", BAD)
async def test_bad_request(stage: Stage, name: str) -> None:
    """Broken HTTP, a broken URL or header is a bad request and ends the connection."""
    await judge(await sending(stage, BAD[name]), "bad-request", ERROR_TABLE["bad-request"])


RULES = {
    "path: empty segment: does the base URL end in a slash?": get("/fhir/Patient//1"),
    "path: dot segment": get("/fhir/%2e%2e/admin"),
    "path: encoded slash": get("/fhir/Patient%2F1"),
    "path: backslash": get("/fhir/Patient%5C1"),
    "path: broken percent escape": get("/fhir/Patient/%zz"),
    "target: not in origin form": get("ftp://platform.invalid/fhir/Patient/1"),
    "TLS sent to a plain HTTP port: use http://": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "request line: a space in the target": get("/fhir/Patient?name=a b"),
    "header: Host is missing": b"GET /fhir/Patient/1 HTTP/1.1\r\n\r\n",
    "header: Host is there twice": get("/fhir/Patient/1", "Host: other"),
    "header: a field's name is not valid": get("/fhir/Patient/1", "X Y: z"),
    "header: Content-Length is no number": get(
        "/fhir/Patient", "Content-Length: abc", method="POST"
    ),
}


@pytest.mark.parametrize("rule", RULES)
async def test_the_diagnostics_name_the_rule(stage: Stage, rule: str) -> None:
    """The vendor of the calling system learns what to correct, and none of it is repeated."""
    evidence = await sending(stage, RULES[rule])
    advice = "surplus-slash" if "slash?" in rule else ""
    await judge(evidence, "bad-request", ERROR_TABLE["bad-request"].but(advice=advice))
    diagnostics = read_json(evidence.reply)["diagnostics"]
    assert rule in diagnostics
    assert "Patient" not in diagnostics


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "FOO", "PROPFIND", "get", "PURGE"])
async def test_method_not_allowed(stage: Stage, method: str) -> None:
    """Methods that FHIR does not use are refused, known to HTTP or not, with those that it uses."""
    evidence = await sending(stage, get("/fhir/Patient/1", method=method))
    await judge(evidence, "method-not-allowed", ERROR_TABLE["method-not-allowed"])


async def test_unknown_method_of_a_long_target(stage: Stage) -> None:
    """The method is to blame however long the target is."""
    evidence = await sending(stage, get("/fhir/Patient?" + "a=b&" * 100, method="FETCH"))
    await judge(evidence, "method-not-allowed", ERROR_TABLE["method-not-allowed"])


async def test_connect_to_an_authority(stage: Stage) -> None:
    """CONNECT in the form that a client of an HTTP proxy sends is refused like any CONNECT."""
    raw = b"CONNECT platform.invalid:443 HTTP/1.1\r\nHost: platform.invalid:443\r\n\r\n"
    await judge(await sending(stage, raw), "method-not-allowed", ERROR_TABLE["method-not-allowed"])


@pytest.mark.parametrize("base", ["/fhirx", "/FHIR/Patient", "/", "/fhi", "/auth/login"])
async def test_unknown_path(stage: Stage, base: str) -> None:
    """base_path ends at a segment's border and is compared with case."""
    gateway = await stage.start()
    evidence = await stage.evidence(gateway, get(base))
    await judge(evidence, "unknown-path", ERROR_TABLE["unknown-path"])
    assert read_json(evidence.reply)["diagnostics"].endswith("; base-path=/fhir")


async def second_header(stage: Stage) -> Evidence:
    """The second request of a connection does not end its header."""
    gateway = await stage.start(limits={"header_timeout": 0.3})
    wire = await stage.open(gateway.address)
    assert (await wire.ask(get("/fhir/Patient/1"))).status == 200
    await wire.send(b"GET /fhir/Patient/2 HTTP/1.1\r\nHost: g")
    return await stage.evidence(gateway, wire=wire)


async def first_line(stage: Stage) -> Evidence:
    """Not even the first line comes."""
    gateway = await stage.start(limits={"header_timeout": 0.3})
    wire = await stage.open(gateway.address)
    await wire.send(b"GE")
    return await stage.evidence(gateway, wire=wire)


@pytest.mark.parametrize("provoke", [second_header, first_line])
async def test_header_timeout(stage: Stage, provoke: Provoke) -> None:
    """A header that stops anywhere is given up, on a kept connection too."""
    row = ERROR_TABLE["header-timeout"].but(asked=(0, 1))
    await judge(await provoke(stage), "header-timeout", row)


@pytest.mark.parametrize("target", ["/fhir/Patient", "/fhir/Binary"])
async def test_body_timeout_in_chunks(stage: Stage, target: str) -> None:
    """A chunked body that stops is given up, and what the platform got never looks complete."""
    gateway = await stage.start(limits={"header_timeout": 0.3})
    wire = await stage.open(gateway.address)
    await wire.send(get(target, "Transfer-Encoding: chunked", method="POST") + b"5\r\nhello\r\n")
    evidence = await stage.evidence(gateway, wire=wire)
    await judge(evidence, "body-timeout", ERROR_TABLE["body-timeout"])
    assert not any(seen.complete for seen in stage.platform.seen)


@pytest.mark.parametrize("target", ["/fhir/Patient", "/fhir/Binary", "/fhir"])
async def test_payload_too_large_in_chunks(stage: Stage, target: str) -> None:
    """A body that grows over the limit is cut off, and never looks complete to the platform."""
    chunked = get(target, "Transfer-Encoding: chunked", method="POST")
    body = b"".join(b"258\r\n%s\r\n" % (b"x" * 600) for _ in range(2)) + b"0\r\n\r\n"
    evidence = await sending(stage, chunked + body, limits={"max_body_bytes": 1000})
    row = ERROR_TABLE["payload-too-large"].but(closed=None, seen=(0, 1), attempts=(0, 1))
    await judge(evidence, "payload-too-large", row)
    assert not any(seen.complete for seen in stage.platform.seen)


async def test_payload_too_large_is_not_invited(stage: Stage) -> None:
    """A caller that asks before it sends a body over the limit gets 413 instead of 100."""
    gateway = await stage.start(limits={"max_body_bytes": 1000})
    wire = await stage.open(gateway.address)
    await wire.send(
        get("/fhir/Patient", "Expect: 100-continue", "Content-Length: 1001", method="POST")
    )
    assert await wire.interim() == 413


async def test_payload_of_the_limit_passes(stage: Stage) -> None:
    """A body as large as the limit is served, chunked or not."""
    gateway = await stage.start(limits={"max_body_bytes": 1000})
    wire = await stage.open(gateway.address)
    assert (await wire.ask(post("/fhir/Binary", b"x" * 1000))).status == 200
    chunked = get("/fhir/Binary", "Transfer-Encoding: chunked", method="POST")
    assert (await wire.ask(chunked + b"3e8\r\n%s\r\n0\r\n\r\n" % (b"x" * 1000))).status == 200


async def test_one_field_too_large(stage: Stage) -> None:
    """One field over the limit is too large, and nothing of the request is read."""
    raw = stage.get("/fhir/Patient/1", "X-Long: " + "x" * 1001)
    evidence = await sending(stage, raw, limits={"max_header_bytes": 1000})
    await judge(evidence, "header-too-large", ERROR_TABLE["header-too-large"].but(parsed=False))


async def test_too_many_fields(stage: Stage) -> None:
    """More fields than the limit are too many."""
    raw = stage.get("/fhir/Patient/1", *(f"X-{n}: 1" for n in range(30)))
    evidence = await sending(stage, raw, limits={"max_headers": 20})
    await judge(evidence, "header-too-large", ERROR_TABLE["header-too-large"].but(parsed=False))


@pytest.mark.parametrize("method", ["PUT", "POST"])
async def test_path_too_long(stage: Stage, method: str) -> None:
    """A target is too long by its path as well as by its query."""
    raw = get("/fhir/" + "x" * 1000, method=method)
    evidence = await sending(stage, raw, limits={"max_url_bytes": 900})
    await judge(evidence, "url-too-long", ERROR_TABLE["url-too-long"])


@pytest.mark.parametrize("code", [400, 401, 403])
async def test_token_refused(stage: Stage, code: int) -> None:
    """400, 401 and 403 of the SSO with an error of RFC 6749 call for an operator."""
    stage.sso.handle(answers.refusal("invalid_client", code))
    evidence = await sending(stage, stage.get())
    await judge(evidence, "token-refused", ERROR_TABLE["token-refused"])


FIREWALL = {"success": False, "errors": [{"message": "planted text of the firewall"}]}


@pytest.mark.parametrize("code", [400, 401, 403])
async def test_a_firewall_in_front_of_the_sso(stage: Stage, code: int) -> None:
    """400, 401 and 403 without an OAuth error are waited out, and the diagnostics say why."""
    for answer in (answers.json_body(FIREWALL, code), answers.status(code)):
        stage.sso.handle(answer)
        asked = len(stage.sso.requests)
        evidence = await sending(stage, stage.get())
        row = ERROR_TABLE["sso-unavailable"].but(asked=asked + 1)
        await judge(evidence, "sso-unavailable", row)
        diagnostics = read_json(evidence.reply)["diagnostics"]
        assert f"status {code}, a firewall in front, or a wrong address" in diagnostics
        assert b"planted" not in evidence.reply.body


UNAVAILABLE = {
    "500": answers.status(500, ("Retry-After", "30")),
    "502": answers.status(502, ("Retry-After", "30")),
    "504": answers.status(504, ("Retry-After", "30")),
    "throttled": answers.status(429, ("Retry-After", "30")),
    "redirect": answers.status(302, ("Location", "/elsewhere"), ("Retry-After", "30")),
    "page": answers.status(200),
    "no token": answers.json_body({}),
    "broken JSON": answers.http(200, b'{"access_token":', content_type="application/json"),
    "another type": answers.token("t", token_type="mac"),
    "hang-up": answers.CLOSE,
    "reset": answers.RESET,
}


@pytest.mark.parametrize("name", UNAVAILABLE)
async def test_sso_unavailable(stage: Stage, name: str) -> None:
    """What is no token and no refusal is an SSO that is not there; nothing is followed."""
    stage.sso.handle(UNAVAILABLE[name])
    evidence = await sending(stage, stage.get())
    await judge(evidence, "sso-unavailable", ERROR_TABLE["sso-unavailable"])


async def test_sso_refuses_connections(stage: Stage) -> None:
    """The SSO's port has no listener."""
    gateway = await stage.start(token_url=f"http://127.0.0.1:{free_port()}/token")
    evidence = await stage.evidence(gateway, stage.get())
    await judge(evidence, "sso-unavailable", ERROR_TABLE["sso-unavailable"].but(asked=0))


async def test_sso_says_nothing(stage: Stage) -> None:
    """A request waits for its token no longer than `sso.timeout`."""
    stage.sso.handle(answers.HANG)
    gateway = await stage.start(sso={"timeout": 0.3})
    evidence = await stage.evidence(gateway, stage.get())
    await judge(evidence, "sso-unavailable", ERROR_TABLE["sso-unavailable"])


async def body_gone(stage: Stage) -> Evidence:
    """A 401 for a body that is no longer at hand."""
    stage.platform.script(unauthorized())
    gateway = await stage.start(limits={"replay_buffer_bytes": 100})
    return await stage.evidence(gateway, post("/fhir/Binary", b"x" * 200_000))


async def pause(stage: Stage) -> Evidence:
    """A 401 soon after a fresh token was refused."""
    stage.platform.answer(unauthorized())
    gateway = await stage.start()
    wire = await stage.open(gateway.address)
    await wire.ask(get("/fhir/Patient/1", "X-Request-Id: first"))
    evidence = await stage.evidence(gateway, stage.get())
    assert await evidence.counted(502, "token-rejected") == 2
    return evidence


async def test_token_rejected_without_the_body(stage: Stage) -> None:
    """Nothing is repeated when the body is gone; people are told that a new token is there."""
    row = ERROR_TABLE["token-rejected"].but(
        seen=1, attempts=1, asked=(1, 2), closed=None, advice="body-gone"
    )
    await judge(await body_gone(stage), "token-rejected", row)


async def test_token_rejected_during_the_pause(stage: Stage) -> None:
    """While forced fetches pause a 401 is passed off at once: no second try, no new token."""
    evidence = await pause(stage)
    assert (evidence.reply.status, evidence.reply.reason) == (502, "token-rejected")
    assert (len(evidence.seen), evidence.token_requests) == (1, 2)
    record = await evidence.record()
    assert (record["attempts"], record["upstream_status"]) == (1, 401)


@pytest.mark.parametrize("target", ["/nowhere", "/fhir/%2e%2e/x", "/fhir/Patient/1"])
async def test_failure_of_a_head(stage: Stage, target: str) -> None:
    """A HEAD that fails is answered by the outcome's header alone."""
    stage.platform.answer(unauthorized().partition(b"\r\n\r\n")[0] + b"\r\n\r\n")
    gateway = await stage.start()
    wire = await stage.open(gateway.address)
    reply = await wire.ask(get(target, method="HEAD"), head=True)
    assert reply.header("x-gateway-error") in ("unknown-path", "bad-request", "token-rejected")
    assert int(reply.header("content-length") or "") > 100
    if reply.header("connection") == "close":
        assert await wire.at_end()
    else:
        stage.platform.answer(fhir())
        assert (await wire.ask(get("/fhir/Patient/1"))).status == 200


async def test_overloaded_ends_with_the_load(stage: Stage) -> None:
    """A request is taken again as soon as there is room."""
    gateway = await stage.start(limits={"max_concurrent_requests": 1})
    busy = await stage.occupy(gateway)
    assert (await stage.evidence(gateway, stage.get())).reply.reason == "overloaded"
    reset(busy)
    wire = await stage.open(gateway.address)
    while (reply := await wire.ask(get("/fhir/Patient/1"))).reason == "overloaded":
        pass
    assert reply.status == 200
