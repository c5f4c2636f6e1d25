"""The table of faults: what fails, over real sockets, and the result.

`FAULTS` begins with one fault for each reason, under the name of the reason; the others are further
causes of the same reasons.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from types import SimpleNamespace
from typing import Any, Final

from gateway.config.value_types import ListenAddress
from gateway.exchange import Exchange
from gateway.http.headers import request_fields
from gateway.http.server.listener import CallerServer
from gateway.pipeline.admission import LifecyclePhase
from gateway.pipeline.handler import Handler
from gateway.pipeline.request_body import MemoryBudget
from tests.doubles import sso
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import (
    PATIENT,
    Platform,
    PlatformConnection,
    ScriptedResponse,
    chunked,
    fhir,
    http,
    outcome,
    page,
    silence,
    then_close,
    then_reset,
    unauthorized,
)
from tests.doubles.processes import free_port
from tests.doubles.waiting import wait_until
from tests.doubles.wire import get, post
from tests.faults.judgement import PERHAPS, Row
from tests.pipeline.testbed import Evidence, Provoke, Testbed, tls_platform, unresponsive_port

# Seconds. A timeout that expires, but not before the other side has responded.
PATIENCE: Final = 1.0
READ: Final = get("/fhir/Patient/1")
# Of a body without an end.
CHUNK: Final = b"10000\r\n" + b" " * 65536 + b"\r\n"
WRITE: Final = post("/fhir/Patient", b'{"resourceType":"Patient"}')


LAB: Final = {"name": "lab", "api_key": "a-key-of-the-laboratory"}
LAB_KEY: Final = "X-Api-Key: a-key-of-the-laboratory"


async def rate_limited(testbed: Testbed) -> Evidence:
    """Send a second request in a second, where one a minute is allowed."""
    limit = {"requests_per_second": 0.016, "burst": 1}
    gateway = await testbed.start(callers=[{**LAB, "rate_limit": limit}])
    wire = await testbed.open(gateway.address)
    assert (await wire.fetch(get("/fhir/Patient/1", LAB_KEY))).status == 200
    return await testbed.send(gateway, testbed.get("/fhir/Patient/1", LAB_KEY))


async def header_timeout(testbed: Testbed) -> Evidence:
    """Send a header section that does not end."""
    gateway = await testbed.start(limits={"header_timeout": PATIENCE})
    wire = await testbed.open(gateway.address)
    await wire.send(testbed.get()[:-2])
    return await testbed.send(gateway, wire=wire)


async def body_timeout(testbed: Testbed) -> Evidence:
    """Send a body that does not end; the platform never sees the request complete."""
    gateway = await testbed.start(limits={"header_timeout": PATIENCE})
    wire = await testbed.open(gateway.address)
    await wire.send(testbed.post(b'{"resourceType":"Patient"}')[:-5])
    evidence = await testbed.send(gateway, wire=wire)
    assert not any(request.complete for request in testbed.platform.requests)
    return evidence


async def overloaded(testbed: Testbed) -> Evidence:
    """Send one request more than may be in flight."""
    gateway = await testbed.start(limits={"max_concurrent_requests": 1})
    await testbed.occupy(gateway)
    return await testbed.send(gateway, testbed.get())


async def upstream_unreachable(testbed: Testbed) -> Evidence:
    """Let the platform be at a port without a listener."""
    gateway = await testbed.start(platform_url=f"http://127.0.0.1:{free_port()}/r5")
    return await testbed.send(gateway, testbed.get())


async def upstream_busy(testbed: Testbed) -> Evidence:
    """Leave no free connection to the platform."""
    gateway = await testbed.start(platform={"max_connections": 1, "connect_timeout": PATIENCE})
    await testbed.occupy(gateway)
    return await testbed.send(gateway, testbed.get())


async def upstream_tls(testbed: Testbed) -> Evidence:
    """Let the platform have a certificate of an unknown CA."""
    context, _ = tls_platform("localhost")
    testbed.platform = await testbed.stack.enter_async_context(Platform(tls=context))
    return await testbed.send(await testbed.start(), testbed.get())


async def search_parameter_ignored(testbed: Testbed) -> Evidence:
    """Let the platform return a searchset whose self link lacks a requested parameter."""
    link = f'{{"relation":"self","url":"{testbed.platform.url}/Patient?name=a"}}'
    bundle = f'{{"resourceType":"Bundle","type":"searchset","link":[{link}]}}'
    testbed.platform.respond(fhir(bundle.encode()))
    gateway = await testbed.start(fhir={"search_guard": "block"})
    return await testbed.send(gateway, testbed.get("/fhir/Patient?name=a&birthdate=2000-01-01"))


async def circuit_open(testbed: Testbed) -> Evidence:
    """Let the platform fail before the request, until the circuit is open."""
    gateway = await testbed.start(circuit_breaker={"min_requests": 1, "window": 600})
    testbed.platform.respond(then_close(b""))
    async with await testbed.open(gateway.address) as wire:
        await wire.fetch(testbed.post())
    await gateway.wait_for_metric(2, "dhp_gateway_circuit_state")
    return await testbed.send(gateway, testbed.get())


async def audit_unavailable(testbed: Testbed) -> Evidence:
    """Write the audit to a full disk."""
    full, roomy = os.open("/dev/full", os.O_WRONLY), os.open("/dev/null", os.O_WRONLY)
    testbed.stack.callback(os.close, full)
    testbed.stack.callback(os.close, roomy)
    gateway = await testbed.start(audit_fd=full)
    # At the end writes succeed again, because stopping would wait for the disk until its timeout.
    testbed.stack.callback(os.dup2, roomy, full)
    await wait_until(lambda: not gateway.gateway.audit.is_available)
    evidence = await testbed.send(gateway, testbed.get())
    return replace(evidence, audited=False)


async def shutting_down(testbed: Testbed) -> Evidence:
    """Send a request on a persistent connection after the listeners have closed."""
    gateway = await testbed.start(shutdown={"delay": 0, "drain_timeout": 10})
    wire = await testbed.open(gateway.address)
    assert (await wire.fetch(get("/fhir/Patient/1"))).status == 200
    await testbed.occupy(gateway)
    stopping = asyncio.create_task(gateway.gateway.stop())
    testbed.stack.push_async_callback(_join, stopping, gateway)
    while await _listens(gateway.address):
        pass
    return await testbed.send(gateway, testbed.get(), wire)


async def _join(stopping: asyncio.Task[None], gateway: RunningGateway) -> None:
    gateway.gateway.skip_drain()
    await stopping


async def _listens(address: ListenAddress) -> bool:
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except ConnectionError:
        return False
    writer.close()
    return True


class _Faulty:
    """A dependency whose every method raises."""

    def __getattr__(self, _name: str) -> Any:
        def fail(*_arguments: object) -> Any:
            raise RuntimeError("the name of a patient")

        return fail


async def internal(testbed: Testbed) -> Evidence:
    """Let a dependency of the handler raise."""
    gateway = await testbed.start()

    def account(exchange: Exchange) -> None:
        gateway.gateway.metrics.record_exchange(exchange)
        gateway.gateway.audit.record_exchange(exchange)

    parts: dict[str, Any] = dict.fromkeys(signature(Handler).parameters, _Faulty())
    parts["admission"] = SimpleNamespace(
        inflight=0, phase=LifecyclePhase.SERVING, buffer_budget=MemoryBudget(0)
    )
    parts["unidentified_limiter"] = SimpleNamespace(limit_error=lambda *of: of[-1])
    parts["account"] = account
    settings = gateway.settings
    parts |= {"listen": settings.listen, "limits": settings.limits, "fhir": settings.fhir}
    parts |= {"fields": request_fields(frozenset())}
    parts |= {"monotonic": time.monotonic, "wall": time.time}
    server = CallerServer(Handler(**parts), settings.limits)
    listener = await asyncio.get_running_loop().create_server(
        server.make_connection, "127.0.0.1", 0
    )
    testbed.stack.push_async_callback(server.shutdown, 0.2)
    testbed.stack.callback(listener.close)
    address = ListenAddress(host="127.0.0.1", port=listener.sockets[0].getsockname()[1])
    return await testbed.send(gateway, testbed.get(), await testbed.open(address))


@dataclass(frozen=True)
class Fault:
    """What fails, the reason that is reported, and the rest of its row."""

    reason: str
    provoke: Provoke
    row: Row

    def caused_by(self, provoke: Provoke, **changes: Any) -> Fault:
        return Fault(self.reason, provoke, self.row.changed(**changes))


def asks(
    request: bytes | Callable[[Testbed], bytes] = READ,
    *,
    platform_sends: ScriptedResponse | None = None,
    sso_sends: sso.ScriptedResponse | None = None,
    **sections: Any,
) -> Provoke:
    """Send the request; the platform and the SSO respond so to each of theirs."""

    async def provoke(testbed: Testbed) -> Evidence:
        if platform_sends is not None:
            testbed.platform.respond(platform_sends)
        if sso_sends is not None:
            testbed.sso.respond(sso_sends)
        raw = request if isinstance(request, bytes) else request(testbed)
        return await testbed.send(await testbed.start(**sections), raw)

    return provoke


def read(*arguments: str, method: str = "GET") -> Callable[[Testbed], bytes]:
    """Return what makes a read in the caller's format, of a patient unless a target is given."""
    return lambda testbed: testbed.get(*arguments, method=method)


def write(body: bytes = b"{}", *fields: str) -> Callable[[Testbed], bytes]:
    return lambda testbed: testbed.post(body, *fields)


_STATEMENT: Final = (
    b'{"resourceType":"CapabilityStatement","rest":[{"resource":[{"type":"Patient"}]}]}'
)
_BLOCK: Final = {"condition_guard": "block"}
_CONDITION: Final = "If-None-Exist: identifier=1"
_PATIENT: Final = "/fhir/Patient/1"
_ROWS: Final[dict[str, tuple[Provoke, Row]]] = {
    "bad-request": (
        # It leaves `base_path` once decoded.
        asks(read("/fhir/%2e%2e/admin")),
        Row(400, "value", closed=True, logged=(logging.INFO, "path: dot segment")),
    ),
    "unknown-path": (
        asks(read("/other/Patient/1")),
        Row(404, "not-found", logged=(logging.INFO, "the path is not below base-path=/fhir")),
    ),
    "loop": (
        asks(read(_PATIENT, "Via: 1.1 front, 1.1 dhp-gateway")),
        Row(508, "processing"),
    ),
    "misdirected": (
        asks(read("http://other.invalid/fhir/Patient/1")),
        Row(421, "not-supported", closed=True),
    ),
    "method-not-allowed": (
        asks(read(method="TRACE")),
        Row(405, "not-supported", allow=True, closed=None),
    ),
    "caller-unauthenticated": (
        asks(read(), callers=[LAB]),
        Row(401, "login", challenge=True, closed=None),
    ),
    "caller-unknown": (
        asks(read(_PATIENT, "X-Api-Key: another"), callers=[LAB]),
        Row(401, "unknown", challenge=True, closed=None),
    ),
    "caller-forbidden": (
        asks(read(_PATIENT, LAB_KEY), callers=[{**LAB, "allow": {"resources": ["Observation"]}}]),
        Row(403, "forbidden"),
    ),
    "rate-limited": (rate_limited, Row(429, "throttled", retry_after=True, token_requests=(1,))),
    "header-timeout": (header_timeout, Row(408, "timeout", closed=True, parsed=False)),
    "body-timeout": (
        body_timeout,
        Row(408, "timeout", closed=True, requests=(0, 1), token_requests=PERHAPS, attempts=(0, 1)),
    ),
    "payload-too-large": (
        asks(write(b"x" * 1001), limits={"max_body_bytes": 1000}),
        Row(413, "too-long", closed=True),
    ),
    "url-too-long": (
        asks(read("/fhir/Patient?name=" + "x" * 1000), limits={"max_url_bytes": 1000}),
        Row(414, "too-long", closed=True, parsed=False),
    ),
    "header-too-large": (
        # Only in sum.
        asks(
            read(_PATIENT, *(f"X-Long-{n}: {'x' * 900}" for n in range(5))),
            limits={"max_header_bytes": 1000},
        ),
        Row(431, "too-long", closed=True),
    ),
    "overloaded": (overloaded, Row(503, "throttled", retry_after=True)),
    "token-refused": (
        asks(read(), sso_sends=sso.oauth_error("invalid_client", 401)),
        Row(
            502,
            "security",
            token_requests=(1,),
            tokens="refused",
            logged=(logging.ERROR, "the token request is refused (status"),
        ),
    ),
    "sso-unavailable": (
        asks(read(), sso_sends=sso.status(503, ("Retry-After", "30"))),
        Row(
            503,
            "transient",
            retry_after=True,
            token_requests=(1,),
            tokens="transient",
            logged=(logging.WARNING, "the SSO"),
        ),
    ),
    "token-rejected": (
        # The new token too.
        asks(read(), platform_sends=unauthorized()),
        Row(
            502,
            "security",
            requests=(2,),
            token_requests=(2,),
            attempts=(2,),
            upstream_status=401,
            retries={"token": 1},
            logged=(logging.ERROR, "the platform refused a fresh token"),
        ),
    ),
    "upstream-unreachable": (
        upstream_unreachable,
        Row(
            503,
            "transient",
            retry_after=True,
            token_requests=(1,),
            attempts=(3,),
            retries={"connect": 2},
            logged=(logging.WARNING, "nothing listens there, or a firewall blocks it"),
        ),
    ),
    "upstream-failed": (
        asks(write(), platform_sends=then_close(b"")),
        Row(
            502,
            "incomplete",
            requests=(1,),
            token_requests=(1,),
            attempts=(1,),
            write=True,
            is_outcome_unknown=True,
            logged=(logging.WARNING, "the platform"),
        ),
    ),
    "upstream-busy": (
        upstream_busy,
        Row(503, "throttled", retry_after=True, token_requests=(1,), attempts=(1,)),
    ),
    "upstream-tls": (
        upstream_tls,
        Row(
            502,
            "security",
            "fatal",
            token_requests=(1,),
            attempts=(1,),
            logged=(logging.ERROR, "its CA goes into platform.ca_file"),
        ),
    ),
    "upstream-timeout": (
        asks(read(), platform_sends=silence, platform={"response_timeout": PATIENCE}),
        Row(
            504,
            "timeout",
            requests=(1,),
            token_requests=(1,),
            attempts=(1,),
            logged=(logging.WARNING, "the platform did not answer in time"),
        ),
    ),
    "upstream-redirect": (
        asks(read(), platform_sends=http(302, b"", ("Location", "https://elsewhere.invalid/"))),
        Row(
            502,
            "processing",
            requests=(1,),
            token_requests=(1,),
            attempts=(1,),
            upstream_status=302,
        ),
    ),
    "upstream-non-fhir": (
        asks(read(), platform_sends=page(404)),
        Row(
            404,
            "not-found",
            requests=(1,),
            token_requests=(1,),
            attempts=(1,),
            upstream_status=404,
            logged=(logging.WARNING, "the platform's response is not FHIR (status 404)"),
        ),
    ),
    "search-parameter-ignored": (
        search_parameter_ignored,
        Row(
            400,
            "not-supported",
            diagnostics="birthdate",
            requests=(1,),
            token_requests=(1,),
            attempts=(1,),
            upstream_status=200,
        ),
    ),
    "condition-unsupported": (
        asks(write(b"{}", _CONDITION), platform_sends=fhir(_STATEMENT), fhir=_BLOCK),
        Row(400, "not-supported", token_requests=(1,)),
    ),
    "condition-unknown": (
        # The statement is not available.
        asks(
            write(b"{}", _CONDITION),
            platform_sends=outcome(503),
            fhir=_BLOCK,
            retries={"max_attempts": 1},
        ),
        Row(503, "transient", token_requests=(1,), retry_after="10", write=True),
    ),
    "circuit-open": (
        circuit_open,
        Row(
            503,
            "transient",
            retry_after=True,
            token_requests=(1,),
            logged=(logging.WARNING, "it is tried again in"),
        ),
    ),
    "audit-unavailable": (audit_unavailable, Row(503, "no-store", retry_after=True)),
    "shutting-down": (
        shutting_down,
        Row(503, "transient", closed=True, token_requests=(1,), retry_after=True),
    ),
    "internal": (internal, Row(500, "exception", "fatal", closed=None)),
}
REASONS: Final = {reason: Fault(reason, *found) for reason, found in _ROWS.items()}


# Bad requests, by the rule that the diagnostics name; the others are in
# tests/wire/test_strictness.py.
_RULES: Final = {
    "path: empty segment: does the base URL end in a slash?": get("/fhir/Patient//1"),
    "path: dot segment": get("/fhir/%2e%2e/admin"),
    "path: encoded slash": get("/fhir/Patient%2F1"),
    "path: backslash": get("/fhir/Patient%5C1"),
    "path: broken percent escape": get("/fhir/Patient/%zz"),
    "target: not in origin form": get("ftp://platform.invalid/fhir/Patient/1"),
    "TLS sent to a plain HTTP port: use http://": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    # HAProxy 2.6.12 with `send-proxy`, and with `send-proxy-v2` (a header for TCP over IPv4).
    "PROXY protocol is not supported": b"PROXY TCP4 10.0.0.5 10.0.0.1 4711 8080\r\n"
    + get("/fhir/Patient/1"),
    "PROXY protocol is not supported: turn": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"
    + b"\x7f\0\0\x05\x7f\0\0\x01\x12\x67\x1f\x90"
    + get("/fhir/Patient/1"),
    "request line: a space in the target": get("/fhir/Patient?name=a b"),
    "line ends: CR LF is needed": b"GET /fhir/Patient/1 HTTP/1.1\r\nHost: gateway\n\r\n",
    "header: Host is missing": b"GET /fhir/Patient/1 HTTP/1.1\r\n\r\n",
    "header: Host is there twice": get("/fhir/Patient/1", "Host: other"),
    "header: a field's name is not valid": get("/fhir/Patient/1", "X Y: z"),
    "header: Content-Length is no number": get(
        "/fhir/Patient", "Content-Length: abc", method="POST"
    ),
    "header: Content-Length is there twice": get(
        "/fhir/Patient", "Content-Length: 1", "Content-Length: 1", method="POST"
    ),
    "header: both Content-Length and Transfer-Encoding": get(
        "/fhir/Patient", "Content-Length: 1", "Transfer-Encoding: chunked", method="POST"
    ),
    "header: a character in a field's value is not valid": get("/fhir/Patient/1", "X: a\x01b"),
    "header: a folded line": get("/fhir/Patient/1", "X: a\r\n b"),
    "body: a chunk is broken": get("/fhir/Patient", "Transfer-Encoding: chunked", method="POST")
    + b"zz\r\n",
    "HTTP/2 is not supported: use HTTP/1.1": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "request line: not valid HTTP": b"G@T /fhir/Patient/1 HTTP/1.1\r\nHost: gateway\r\n\r\n",
}


def _bad_requests() -> dict[str, Fault]:
    found = {}
    for rule, raw in _RULES.items():
        advice = "surplus-slash" if "slash?" in rule else ""
        changes: dict[str, Any] = {"diagnostics": rule, "absent": b"Patient", "logged": None}
        found[rule] = REASONS["bad-request"].caused_by(asks(raw), advice=advice, **changes)
    return found


_LARGE_HEADER: Final = REASONS["header-too-large"]
_CALLERS: Final = {
    **_bad_requests(),
    "loop through a gateway of another version": REASONS["loop"].caused_by(
        asks(get("/fhir/Patient/1", "Via: 1.0 a, HTTP/1.1 DHP-Gateway (x)"))
    ),
    **{
        f"method {method}": REASONS["method-not-allowed"].caused_by(
            asks(get("/fhir/Patient/1", method=method))
        )
        for method in ("CONNECT", "FOO", "PROPFIND", "get", "PURGE")
    },
    "unknown method of a long target": REASONS["method-not-allowed"].caused_by(
        asks(get("/fhir/Patient?" + "a=b&" * 100, method="FETCH"))
    ),
    # As a client of an HTTP proxy sends it.
    "CONNECT to an authority": REASONS["method-not-allowed"].caused_by(
        asks(b"CONNECT platform.invalid:443 HTTP/1.1\r\nHost: platform.invalid:443\r\n\r\n")
    ),
    # base_path ends at a segment's border and is compared with case.
    **{
        f"path {base}": REASONS["unknown-path"].caused_by(
            asks(get(base)), diagnostics="; base-path=/fhir"
        )
        for base in ("/fhirx", "/FHIR/Patient", "/", "/fhi", "/auth/login")
    },
    "one field too large": _LARGE_HEADER.caused_by(
        asks(get("/fhir/Patient/1", "X-Long: " + "x" * 17_000)), parsed=False
    ),
    "one field over a lower limit": _LARGE_HEADER.caused_by(
        asks(get("/fhir/Patient/1", "X-Long: " + "x" * 1001), limits={"max_header_bytes": 1000}),
        parsed=False,
    ),
    "too many fields": _LARGE_HEADER.caused_by(
        asks(get("/fhir/Patient/1", *["X-Many: 1"] * 300)), parsed=False
    ),
    "more fields than a lower limit": _LARGE_HEADER.caused_by(
        asks(get("/fhir/Patient/1", *(f"X-{n}: 1" for n in range(30))), limits={"max_headers": 20}),
        parsed=False,
    ),
    "fields too large in sum": _LARGE_HEADER.caused_by(
        asks(get("/fhir/Patient/1", *[f"X-{n}: {'x' * 15_000}" for n in range(5)]))
    ),
    # A target is too long by its path as well as by its query.
    **{
        f"path too long for a {method}": REASONS["url-too-long"].caused_by(
            asks(get("/fhir/" + "x" * 1000, method=method), limits={"max_url_bytes": 900})
        )
        for method in ("PUT", "POST")
    },
    "query too long": REASONS["url-too-long"].caused_by(
        asks(get("/fhir/Patient?name=" + "x" * 9000))
    ),
    "body too large, not sent": REASONS["payload-too-large"].caused_by(
        asks(
            get("/fhir/Patient", "Content-Length: 1001", method="POST"),
            limits={"max_body_bytes": 1000},
        )
    ),
    "body too large, announced": REASONS["payload-too-large"].caused_by(
        asks(
            get("/fhir/Patient", "Expect: 100-continue", "Content-Length: 1001", method="POST"),
            limits={"max_body_bytes": 1000},
        )
    ),
}


def _in_chunks() -> dict[str, Fault]:
    """Return faults of chunked bodies, of which the platform never receives a complete one."""
    found = {}
    large = b"".join(b"258\r\n%s\r\n" % (b"x" * 600) for _ in range(2)) + b"0\r\n\r\n"
    for target in ("/fhir/Patient", "/fhir/Binary", "/fhir"):
        head = get(target, "Transfer-Encoding: chunked", method="POST")
        found[f"chunks that grow too large for {target}"] = REASONS["payload-too-large"].caused_by(
            _incomplete(asks(head + large, limits={"max_body_bytes": 1000})),
            closed=None,
            requests=(0, 1),
            attempts=(0, 1),
        )
        found[f"chunks that stop for {target}"] = REASONS["body-timeout"].caused_by(
            _incomplete(asks(head + b"5\r\nhello\r\n", limits={"header_timeout": PATIENCE}))
        )
    return found


def _incomplete(provoke: Provoke) -> Provoke:
    async def checked(testbed: Testbed) -> Evidence:
        evidence = await provoke(testbed)
        assert not any(request.complete for request in testbed.platform.requests)
        return evidence

    return checked


_SSO_DOWN: Final = REASONS["sso-unavailable"]
_FIREWALL: Final = {"success": False, "errors": [{"message": "planted text of the firewall"}]}
_LATER: Final = ("Retry-After", "30")


async def sso_unreachable(testbed: Testbed) -> Evidence:
    """Let the SSO be at a port without a listener."""
    gateway = await testbed.start(token_url=f"http://127.0.0.1:{free_port()}/token")
    return await testbed.send(gateway, READ)


async def sso_unknown(testbed: Testbed) -> Evidence:
    """Let the SSO's name not resolve."""
    gateway = await testbed.start(
        token_url="http://sso.invalid/token", platform={"allow_plaintext": True}
    )
    return await testbed.send(gateway, READ)


# Responses without a usable token are in tests/oauth/test_grants.py.
_SSO: Final = {
    **{
        f"client refused with {code}": REASONS["token-refused"].caused_by(
            asks(sso_sends=sso.oauth_error("invalid_client", code)), absent=b"as the test wants it"
        )
        for code in (400, 401, 403)
    },
    # 400, 401 and 403 without an OAuth error are waited out.
    **{
        f"firewall in front of the SSO: {name} with {code}": _SSO_DOWN.caused_by(
            asks(sso_sends=answer),
            diagnostics=f"status {code}, a firewall in front of it, or a wrong address",
            absent=b"planted",
        )
        for code in (400, 401, 403)
        for name, answer in {
            "JSON": sso.json_body(_FIREWALL, code),
            "page": sso.status(code),
        }.items()
    },
    **{
        f"SSO: {name}": _SSO_DOWN.caused_by(asks(sso_sends=answer))
        for name, answer in {
            "500": sso.status(500, _LATER),
            "502": sso.status(502, _LATER),
            "504": sso.status(504, _LATER),
            "redirect": sso.status(302, ("Location", "/elsewhere"), _LATER),
            "page": sso.status(200),
            "no token": sso.json_body({}),
            "hang-up": sso.CLOSE,
            "reset": sso.RESET,
        }.items()
    },
    "SSO: throttled": _SSO_DOWN.caused_by(
        asks(sso_sends=sso.status(429, _LATER)), tokens="throttled"
    ),
    "SSO: token with a line end": _SSO_DOWN.caused_by(
        asks(sso_sends=sso.token("a\r\nX-Evil: 1")), absent=b"X-Evil"
    ),
    "SSO: no listener": _SSO_DOWN.caused_by(sso_unreachable, token_requests=0),
    "SSO: name unknown": _SSO_DOWN.caused_by(sso_unknown, token_requests=0),
    # A request waits for its token no longer than `sso.timeout`.
    "SSO: silence": _SSO_DOWN.caused_by(asks(sso_sends=sso.HANG, sso={"timeout": PATIENCE})),
}


async def body_gone(testbed: Testbed) -> Evidence:
    """Reject the token of a request whose body was not retained; the next one has a new token."""
    testbed.platform.script(unauthorized())
    gateway = await testbed.start(limits={"replay_buffer_bytes": 100})
    evidence = await testbed.send(gateway, post("/fhir/Binary", b"x" * 200_000))
    assert (await testbed.send(gateway, READ)).requests[0].header(
        "authorization"
    ) == "Bearer token-2"
    return evidence


async def second_header(testbed: Testbed) -> Evidence:
    """Let the header of a connection's second request not end."""
    gateway = await testbed.start(limits={"header_timeout": PATIENCE})
    wire = await testbed.open(gateway.address)
    assert (await wire.fetch(READ)).status == 200
    await wire.send(b"GET /fhir/Patient/2 HTTP/1.1\r\nHost: g")
    return await testbed.send(gateway, wire=wire)


async def write_unreachable(testbed: Testbed) -> Evidence:
    """Let the platform of a write be at a port without a listener."""
    gateway = await testbed.start(platform_url=f"http://127.0.0.1:{free_port()}/r5")
    return await testbed.send(gateway, WRITE)


async def platform_unknown(testbed: Testbed) -> Evidence:
    """Let the platform's name not resolve."""
    # A label of 63 characters is valid, and no host has it.
    gateway = await testbed.start(
        platform_url=f"http://{'x' * 63}.invalid/r5", platform={"allow_plaintext": True}
    )
    return await testbed.send(gateway, READ)


async def platform_unresponsive(testbed: Testbed) -> Evidence:
    """Let the platform neither accept nor refuse connections."""
    url = f"http://127.0.0.1:{unresponsive_port(testbed.stack)}/r5"
    gateway = await testbed.start(platform_url=url, platform={"connect_timeout": PATIENCE})
    return await testbed.send(gateway, READ)


async def certificate_of_another_host(testbed: Testbed) -> Evidence:
    """Let the platform have a trusted certificate for another name."""
    context, authority = tls_platform("another.example")
    testbed.platform = await testbed.stack.enter_async_context(Platform(tls=context))
    with authority.cert_pem.tempfile() as ca_file:
        gateway = await testbed.start(platform={"ca_file": ca_file})
    return await testbed.send(gateway, WRITE)


async def no_tls(testbed: Testbed) -> Evidence:
    """Let the platform speak no TLS behind https; it receives no token."""
    heard = b""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += await reader.read(4096)
        writer.write(http(400))
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.1", 0)
    testbed.stack.callback(server.close)
    url = f"https://localhost:{server.sockets[0].getsockname()[1]}/r5"
    evidence = await testbed.send(await testbed.start(platform_url=url), READ)
    assert b"token-1" not in heard
    return evidence


_OK: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/fhir+json\r\n"
_HALF: Final = _OK + b"Content-Length: 100\r\n\r\n" + PATIENT
# What is no valid HTTP is in tests/wire/test_platform_strictness.py.
_BROKEN: Final[dict[str, ScriptedResponse]] = {
    "closed": then_close(b""),
    "reset": then_reset(b""),
    "cut in its header": then_close(_OK),
    "cut in its body": then_close(_HALF),
    "reset in its body": then_reset(_HALF),
    "cut in its chunks": then_close(chunked(PATIENT, end=False)),
    "reset in its chunks": then_reset(chunked(PATIENT, end=False)),
    "cut without framing": then_close(_OK + b"\r\n" + PATIENT[:-1]),
    "reset without framing": then_reset(_OK + b"\r\n" + PATIENT),
    # Without a length and a type it is unknown whether it is complete.
    "without framing or type": then_close(http(200, PATIENT, length=False)),
    "without framing, of unknown type": then_close(
        http(200, PATIENT, ("Content-Type", "application/octet-stream"), length=False)
    ),
    "garbage": then_close(b"\x00\x01\x02 this is no HTTP\r\n\r\n"),
}


async def stall(connection: PlatformConnection, data: bytes) -> None:
    """Send the octets, then nothing more."""
    connection.writer.write(data)
    await silence(connection)


_STALLED: Final[dict[str, ScriptedResponse]] = {
    "in its header": partial(stall, data=_OK),
    "in its body": partial(stall, data=_OK + b"Content-Length: 100\r\n\r\n{"),
    "in its chunks": partial(stall, data=chunked(PATIENT, end=False)),
    "before a final answer": partial(stall, data=b"HTTP/1.1 100 Continue\r\n\r\n"),
}

# After these a write is told that it was not processed.
_REFUSALS: Final = (405, 408, 413, 414, 415, 429, 431)
# The issue code by status.
_ISSUE_CODES: Final = {
    400: "processing",
    403: "processing",
    404: "not-found",
    405: "processing",
    408: "timeout",
    409: "conflict",
    410: "deleted",
    412: "conflict",
    413: "too-long",
    414: "processing",
    415: "processing",
    422: "processing",
    429: "throttled",
    431: "processing",
    500: "exception",
    502: "transient",
    503: "transient",
    504: "timeout",
}
_BODIES: Final[dict[str, Callable[[int], bytes]]] = {
    "page": page,
    "empty": http,
    "empty FHIR": lambda code: fhir(b"", code),
    "other JSON": lambda code: http(code, b'{"error":"x"}', ("Content-Type", "application/json")),
    "text": lambda code: http(code, b"no", ("Content-Type", "text/plain")),
    "page as FHIR": lambda code: fhir(b"<!DOCTYPE html><html></html>", code),
    "page of no type": lambda code: http(code, b"<html></html>"),
}
_LOGIN_PAGES: Final = {
    "page": page(200),
    "page as FHIR": fhir(b"<!doctype html><html></html>"),
    "page of no type": http(200, b"<html></html>"),
    "page after a comment": http(200, b"<!-- hi -->\n<HTML></HTML>", ("Content-Type", "text/html")),
}


# The row of an error that is not FHIR: its status stays.
NOT_FHIR: Final = {
    code: REASONS["upstream-non-fhir"].row.changed(
        status=code,
        issue_code=issue_code,
        upstream_status=code,
        absent=b"Oops",
        logged=None,
        advice="unprocessed" if code in _REFUSALS else "",
    )
    for code, issue_code in _ISSUE_CODES.items()
}


# Pairs of a body and a status that are left to CI; each body and each status is in another pair.
CROSSED: Final = {
    f"{body} with {code}"
    for body in _BODIES
    for code in _ISSUE_CODES
    if body != "page" and code != 422
}


def _not_fhir() -> dict[str, Fault]:
    found = {
        f"{name} with {code}": (asks(WRITE, platform_sends=body(code)), row.changed(write=True))
        for code, row in NOT_FHIR.items()
        for name, body in _BODIES.items()
    }
    for code in (502, 503, 504):
        row = NOT_FHIR[code].changed(requests=3, attempts=3, retries={"status": 2})
        found[f"page with {code} to a read"] = (asks(platform_sends=page(code)), row)
    for code in (429, 503):
        answer = page(code, ("Retry-After", "17"))
        row = NOT_FHIR[code].changed(retry_after="17")
        found[f"page with {code} that says when to come again"] = (asks(platform_sends=answer), row)
    for name, answer in _LOGIN_PAGES.items():
        row = NOT_FHIR[403].changed(status=502, upstream_status=200)
        found[f"{name} with 200 to a read"] = (asks(platform_sends=answer), row)
        found[f"{name} with 200 to a write"] = (
            asks(WRITE, platform_sends=answer),
            row.changed(write=True),
        )
    return {name: Fault("upstream-non-fhir", *each) for name, each in found.items()}


_PLATFORM: Final = {
    "body gone when the token is rejected": REASONS["token-rejected"].caused_by(
        body_gone,
        requests=1,
        attempts=1,
        token_requests=(1, 2),
        retries={},
        closed=None,
        advice="body-gone",
        logged=(logging.ERROR, "the platform refused the token, and the body cannot be sent again"),
    ),
    "platform: no listener for a write": REASONS["upstream-unreachable"].caused_by(
        write_unreachable, write=True
    ),
    "platform: name unknown": REASONS["upstream-unreachable"].caused_by(
        platform_unknown, logged=None
    ),
    "platform: connection never made": REASONS["upstream-unreachable"].caused_by(
        platform_unresponsive,
        attempts=1,
        retries={},
        logged=(logging.WARNING, "as behind a firewall"),
    ),
    "certificate of another host": REASONS["upstream-tls"].caused_by(
        certificate_of_another_host, write=True, logged=None
    ),
    "no TLS behind https": REASONS["upstream-tls"].caused_by(no_tls, logged=None),
    **{
        f"answer to a write {name}": REASONS["upstream-failed"].caused_by(
            asks(WRITE, platform_sends=answer)
        )
        for name, answer in _BROKEN.items()
    },
    **{
        f"answer to a read {name}": REASONS["upstream-failed"].caused_by(
            asks(platform_sends=answer),
            requests=3,
            attempts=3,
            retries={"broken": 2},
            write=False,
            is_outcome_unknown=False,
        )
        for name, answer in _BROKEN.items()
    },
    **{
        f"answer stalls {name}": REASONS["upstream-timeout"].caused_by(
            asks(
                platform_sends=answer,
                platform={"response_timeout": PATIENCE, "idle_timeout": PATIENCE},
            )
        )
        for name, answer in _STALLED.items()
    },
    "no answer to a write": REASONS["upstream-timeout"].caused_by(
        asks(WRITE, platform_sends=silence, platform={"response_timeout": PATIENCE}),
        write=True,
        is_outcome_unknown=True,
    ),
    # Not followed, because that would take the token along, and not passed on.
    **{
        f"redirect with {code}": REASONS["upstream-redirect"].caused_by(
            asks(platform_sends=outcome(code, ("Location", "http://elsewhere.invalid/Patient/2"))),
            upstream_status=code,
        )
        for code in (300, 301, 302, 303, 305, 306, 307, 308)
    },
    **_not_fhir(),
}

FAULTS: Final = {
    **REASONS,
    **_CALLERS,
    **_in_chunks(),
    "header that stops on a kept connection": REASONS["header-timeout"].caused_by(second_header),
    **_SSO,
    **_PLATFORM,
}
