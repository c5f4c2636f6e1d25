"""One way to provoke each reason of the error table over real sockets."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from inspect import signature
from types import SimpleNamespace
from typing import Any, Final

from gateway.config.value_types import ListenAddress
from gateway.exchange import Exchange
from gateway.http.headers import request_fields
from gateway.http.server.listener import CallerServer
from gateway.pipeline.handler import Handler
from gateway.pipeline.request_body import MemoryBudget
from tests.doubles.gateway import Running
from tests.doubles.platform import Platform, fhir, http, page, silence, then_close, unauthorized
from tests.doubles.processes import free_port
from tests.doubles.sso import refusal, status
from tests.doubles.wire import get
from tests.pipeline.stage import Evidence, Provoke, Stage, tls_platform, until

PATIENCE: Final = 0.3


async def bad_request(stage: Stage) -> Evidence:
    """Send a path that leaves `base_path` once decoded."""
    return await stage.evidence(await stage.start(), stage.get("/fhir/%2e%2e/admin"))


async def unknown_path(stage: Stage) -> Evidence:
    """Send a path outside `base_path`."""
    return await stage.evidence(await stage.start(), stage.get("/other/Patient/1"))


async def loop(stage: Stage) -> Evidence:
    """Send a request with the gateway's own Via."""
    request = stage.get("/fhir/Patient/1", "Via: 1.1 front, 1.1 dhp-gateway")
    return await stage.evidence(await stage.start(), request)


async def misdirected(stage: Stage) -> Evidence:
    """Send the whole URL of another host."""
    target = "http://other.invalid/fhir/Patient/1"
    return await stage.evidence(await stage.start(), stage.get(target))


async def method_not_allowed(stage: Stage) -> Evidence:
    """Send a method that FHIR does not use."""
    return await stage.evidence(await stage.start(), stage.get(method="TRACE"))


LAB: Final = {"name": "lab", "api_key": "a-key-of-the-laboratory"}
LAB_KEY: Final = "X-Api-Key: a-key-of-the-laboratory"


async def caller_unauthenticated(stage: Stage) -> Evidence:
    """Send no key where one is required."""
    return await stage.evidence(await stage.start(callers=[LAB]), stage.get())


async def caller_unknown(stage: Stage) -> Evidence:
    """Send a key that belongs to no caller."""
    gateway = await stage.start(callers=[LAB])
    return await stage.evidence(gateway, stage.get("/fhir/Patient/1", "X-Api-Key: another"))


async def caller_forbidden(stage: Stage) -> Evidence:
    """Request a resource type that this caller may not use."""
    gateway = await stage.start(callers=[{**LAB, "allow": {"resources": ["Observation"]}}])
    return await stage.evidence(gateway, stage.get("/fhir/Patient/1", LAB_KEY))


async def rate_limited(stage: Stage) -> Evidence:
    """Send a second request in a second, where one a minute is allowed."""
    limit = {"requests_per_second": 0.016, "burst": 1}
    gateway = await stage.start(callers=[{**LAB, "rate_limit": limit}])
    wire = await stage.open(gateway.address)
    assert (await wire.ask(get("/fhir/Patient/1", LAB_KEY))).status == 200
    return await stage.evidence(gateway, stage.get("/fhir/Patient/1", LAB_KEY))


async def header_timeout(stage: Stage) -> Evidence:
    """Send a header section that does not end."""
    gateway = await stage.start(limits={"header_timeout": PATIENCE})
    wire = await stage.open(gateway.address)
    await wire.send(stage.get()[:-2])
    return await stage.evidence(gateway, wire=wire)


async def body_timeout(stage: Stage) -> Evidence:
    """Send a body that does not end."""
    gateway = await stage.start(limits={"header_timeout": PATIENCE})
    wire = await stage.open(gateway.address)
    await wire.send(stage.post(b'{"resourceType":"Patient"}')[:-5])
    return await stage.evidence(gateway, wire=wire)


async def payload_too_large(stage: Stage) -> Evidence:
    """Announce a body that is larger than the limit."""
    gateway = await stage.start(limits={"max_body_bytes": 1000})
    return await stage.evidence(gateway, stage.post(b"x" * 1001))


async def url_too_long(stage: Stage) -> Evidence:
    """Send a target over the limit."""
    gateway = await stage.start(limits={"max_url_bytes": 1000})
    return await stage.evidence(gateway, stage.get("/fhir/Patient?name=" + "x" * 1000))


async def header_too_large(stage: Stage) -> Evidence:
    """Send fields that exceed the limit only in sum."""
    gateway = await stage.start(limits={"max_header_bytes": 1000})
    fields = [f"X-Long-{n}: {'x' * 900}" for n in range(5)]
    return await stage.evidence(gateway, stage.get("/fhir/Patient/1", *fields))


async def overloaded(stage: Stage) -> Evidence:
    """Send one request more than may be in flight."""
    gateway = await stage.start(limits={"max_concurrent_requests": 1})
    await stage.occupy(gateway)
    return await stage.evidence(gateway, stage.get())


async def token_refused(stage: Stage) -> Evidence:
    """Let the SSO refuse the client's secret."""
    stage.sso.handle(refusal("invalid_client", 401))
    return await stage.evidence(await stage.start(), stage.get())


async def sso_unavailable(stage: Stage) -> Evidence:
    """Let the SSO be down behind its load balancer."""
    stage.sso.handle(status(503, ("Retry-After", "30")))
    return await stage.evidence(await stage.start(), stage.get())


async def token_rejected(stage: Stage) -> Evidence:
    """Let the platform reject a new token too."""
    stage.platform.answer(unauthorized())
    return await stage.evidence(await stage.start(), stage.get())


async def upstream_unreachable(stage: Stage) -> Evidence:
    """Let the platform be at a port without a listener."""
    gateway = await stage.start(platform_url=f"http://127.0.0.1:{free_port()}/r5")
    return await stage.evidence(gateway, stage.get())


async def upstream_failed(stage: Stage) -> Evidence:
    """Let the platform close the connection on a write, without a response."""
    stage.platform.answer(then_close(b""))
    return await stage.evidence(await stage.start(), stage.post())


async def upstream_busy(stage: Stage) -> Evidence:
    """Leave no free connection to the platform."""
    gateway = await stage.start(
        platform={"max_connections": 1, "connect_timeout": PATIENCE},
    )
    await stage.occupy(gateway)
    return await stage.evidence(gateway, stage.get())


async def upstream_tls(stage: Stage) -> Evidence:
    """Let the platform have a certificate of an unknown CA."""
    context, _ = tls_platform("localhost")
    stage.platform = await stage.stack.enter_async_context(Platform(tls=context))
    return await stage.evidence(await stage.start(), stage.get())


async def upstream_timeout(stage: Stage) -> Evidence:
    """Let the platform send no response."""
    stage.platform.answer(silence)
    gateway = await stage.start(platform={"response_timeout": PATIENCE})
    return await stage.evidence(gateway, stage.get())


async def upstream_redirect(stage: Stage) -> Evidence:
    """Let the platform respond with a redirect."""
    stage.platform.answer(http(302, b"", ("Location", "https://elsewhere.invalid/")))
    return await stage.evidence(await stage.start(), stage.get())


async def upstream_non_fhir(stage: Stage) -> Evidence:
    """Let the platform respond with an HTML page instead of an OperationOutcome."""
    stage.platform.answer(page(404))
    return await stage.evidence(await stage.start(), stage.get())


async def search_parameter_ignored(stage: Stage) -> Evidence:
    """Let the platform return a searchset whose self link lacks a requested parameter."""
    link = f'{{"relation":"self","url":"{stage.platform.url}/Patient?name=a"}}'
    bundle = f'{{"resourceType":"Bundle","type":"searchset","link":[{link}]}}'
    stage.platform.answer(fhir(bundle.encode()))
    gateway = await stage.start(fhir={**stage.fhir, "search_guard": "block"})
    return await stage.evidence(gateway, stage.get("/fhir/Patient?name=a&birthdate=2000-01-01"))


async def condition_unsupported(stage: Stage) -> Evidence:
    """Send a conditional create to a platform that declares none."""
    statement = b'{"resourceType":"CapabilityStatement","rest":[{"resource":[{"type":"Patient"}]}]}'
    stage.platform.answer(fhir(statement))
    gateway = await stage.start(fhir={**stage.fhir, "condition_guard": "block"})
    return await stage.evidence(gateway, stage.post(b"{}", "If-None-Exist: identifier=1"))


async def circuit_open(stage: Stage) -> Evidence:
    """Let the platform fail right before the request."""
    gateway = await stage.start(circuit_breaker={"min_requests": 1})
    stage.platform.answer(then_close(b""))
    async with await stage.open(gateway.address) as wire:
        await wire.ask(stage.post())
    return await stage.evidence(gateway, stage.get())


async def audit_unavailable(stage: Stage) -> Evidence:
    """Write the audit to a full disk."""
    full, roomy = os.open("/dev/full", os.O_WRONLY), os.open("/dev/null", os.O_WRONLY)
    stage.stack.callback(os.close, full)
    stage.stack.callback(os.close, roomy)
    gateway = await stage.start(audit_fd=full)
    # At the end writes succeed again, because stopping would wait for the disk until its timeout.
    stage.stack.callback(os.dup2, roomy, full)
    await until(lambda: not gateway.gateway.audit.is_available)
    evidence = await stage.evidence(gateway, stage.get())
    return replace(evidence, audited=False)


async def shutting_down(stage: Stage) -> Evidence:
    """Send a request on a persistent connection after the listeners have closed."""
    gateway = await stage.start(shutdown={"delay": 0, "drain_timeout": 10})
    wire = await stage.open(gateway.address)
    assert (await wire.ask(get("/fhir/Patient/1"))).status == 200
    await stage.occupy(gateway)
    stopping = asyncio.create_task(gateway.gateway.stop())
    stage.stack.push_async_callback(_join, stopping, gateway)
    while await _listens(gateway.address):
        pass
    return await stage.evidence(gateway, stage.get(), wire)


async def _join(stopping: asyncio.Task[None], gateway: Running) -> None:
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


async def internal(stage: Stage) -> Evidence:
    """Let a dependency of the handler raise."""
    gateway = await stage.start()

    def account(exchange: Exchange) -> None:
        gateway.gateway.metrics.record_exchange(exchange)
        gateway.gateway.audit.record_exchange(exchange)

    parts: dict[str, Any] = dict.fromkeys(signature(Handler).parameters, _Faulty())
    parts["admission"] = SimpleNamespace(
        exchange_started=bool,
        exchange_ended=bool,
        is_draining=lambda: False,
        buffer_budget=MemoryBudget(0),
    )
    parts["account"] = account
    settings = gateway.settings
    parts |= {"listen": settings.listen, "limits": settings.limits, "fhir": settings.fhir}
    parts |= {"fields": request_fields(frozenset())}
    parts |= {"monotonic": time.monotonic, "wall": time.time}
    server = CallerServer(Handler(**parts), settings.limits)
    listener = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0)
    stage.stack.push_async_callback(server.shutdown, 0.2)
    stage.stack.callback(listener.close)
    address = ListenAddress(host="127.0.0.1", port=listener.sockets[0].getsockname()[1])
    return await stage.evidence(gateway, stage.get(), await stage.open(address))


PROVOKED: Final[dict[str, Provoke]] = {
    "bad-request": bad_request,
    "unknown-path": unknown_path,
    "loop": loop,
    "misdirected": misdirected,
    "method-not-allowed": method_not_allowed,
    "caller-unauthenticated": caller_unauthenticated,
    "caller-unknown": caller_unknown,
    "caller-forbidden": caller_forbidden,
    "rate-limited": rate_limited,
    "header-timeout": header_timeout,
    "body-timeout": body_timeout,
    "payload-too-large": payload_too_large,
    "url-too-long": url_too_long,
    "header-too-large": header_too_large,
    "overloaded": overloaded,
    "token-refused": token_refused,
    "sso-unavailable": sso_unavailable,
    "token-rejected": token_rejected,
    "upstream-unreachable": upstream_unreachable,
    "upstream-failed": upstream_failed,
    "upstream-busy": upstream_busy,
    "upstream-tls": upstream_tls,
    "upstream-timeout": upstream_timeout,
    "upstream-redirect": upstream_redirect,
    "upstream-non-fhir": upstream_non_fhir,
    "search-parameter-ignored": search_parameter_ignored,
    "condition-unsupported": condition_unsupported,
    "circuit-open": circuit_open,
    "audit-unavailable": audit_unavailable,
    "shutting-down": shutting_down,
    "internal": internal,
}
