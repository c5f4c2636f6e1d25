"""Gateways with one fault each, scraped by one Prometheus.

The gateways are processes, in front of sandboxes with faults. Where Prometheus must scrape the
state before a fault (a token that is not renewed, a second refused secret), a coroutine waits for
that state and then causes the fault.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import json
import secrets
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import trustme
import yaml

from gateway.sandbox.options import Faults, SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.deploy import prometheus
from tests.deploy.prometheus import Prometheus
from tests.doubles.certificates import server_context
from tests.doubles.platform import Platform, PlatformConnection, fhir, outcome, read_body
from tests.doubles.processes import GatewayProcess, start_gateway
from tests.doubles.sections import gateway_settings

# The gateway at which each alert is expected; "" stands for none. Faults have consequences, so
# that other alerts may fire there too, but never at the gateway `WELL`.
EXPECTED = {
    "DhpGatewayAbsent": "",
    "DhpGatewayDown": "killed",
    "DhpGatewayNotReady": "down",
    "DhpGatewayReloadFailed": "refused",
    "DhpGatewayOverloaded": "waiting",
    "DhpGatewayTokenExpiring": "expiring",
    "DhpGatewayTokenMissing": "expiring",
    "DhpGatewayTokenWaiters": "waiting",
    "DhpGatewayTokenRejected": "killed",
    "DhpGatewaySsoRefusing": "refused",
    "DhpGatewaySsoFailing": "expiring",
    "DhpGatewaySsoThrottling": "throttled",
    "DhpGatewayPlatformDown": "down",
    "DhpGatewayPlatformUnusable": "killed",
    "DhpGatewayCircuitOpen": "down",
    "DhpGatewayTlsFailing": "untrusted",
    "DhpGatewayErrorRatio": "down",
    "DhpGatewaySlow": "slow",
    "DhpGatewayConnectionsExhausted": "slow",
    "DhpGatewayAuditDropped": "down",
    "DhpGatewayAuditUnavailable": "blocked",
    "DhpGatewayOutboxAgeing": "queueing",
    "DhpGatewayOutboxUnclear": "queueing",
    "DhpGatewayOutboxFailed": "queueing",
    "DhpGatewayOutboxFull": "queueing",
    "DhpGatewayOutboxUnavailable": "shut",
    "DhpGatewayOutboxStandstill": "queueing",
    "DhpGatewayCertificateExpiring": "untrusted",
    "DhpGatewayCertificateLastDays": "untrusted",
}
HEALTHY = "well"

# Seconds. All alerts fire within a minute or two, unless the machine is busy.
_TIMEOUT = 240.0
_POLL_INTERVAL = 0.25
# Standard output is a device that is always full: the audit cannot be written.
_FULL_DISK = ("sh", "-c", 'exec "$@" >/dev/full', "sh")
_PATHS = ("/Patient/5d0c6f0a-1f1e-4c55-9a1b-000000000011", "/Patient?name=a", "/Patient/nobody")
# Seconds until a caller's request times out.
_CALLER_TIMEOUT = 10.0


@dataclass
class AlertRecording:
    """What Prometheus recorded: the alerts by gateway, their texts, and the dashboards' results.

    `answers` has the number of series that each query of a dashboard found.
    """

    fired: dict[str, set[str]] = field(default_factory=dict)
    texts: dict[str, dict[str, str]] = field(default_factory=dict)
    series_counts: dict[str, dict[str, int]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)

    def has_fired(self, alert: str) -> bool:
        return EXPECTED[alert] in self.fired.get(alert, ())


@dataclass(frozen=True)
class GatewayCase:
    """A gateway's settings beside the usual ones, and the interval of its callers.

    `pause` is the seconds between the starts of two requests, of which any number may be in flight;
    None: there are no callers. `prefix` is a program that runs the gateway.
    """

    settings: dict[str, Any]
    interval: float | None = None
    prefix: Sequence[str] = ()


@dataclass
class Backends:
    """The servers behind the gateways."""

    healthy: Sandbox
    short_lived: Sandbox
    slow_sso: Sandbox
    throttling: Sandbox
    failing: Sandbox
    slow: Sandbox
    rejecting: Sandbox
    untrusted: Platform
    recovering: Platform


@contextlib.asynccontextmanager
async def _backends() -> AsyncIterator[Backends]:
    tls = server_context(trustme.CA())
    sandboxes = {
        "healthy": Faults(),
        "short_lived": Faults(token_lifetime=600 // prometheus.SPEED),
        "slow_sso": Faults(delays={"sso": 60}),
        "throttling": Faults(failures={"sso": 429}),
        "failing": Faults(failures={"platform": 503}),
        "slow": Faults(delays={"platform": 6}),
        "rejecting": Faults(reject_tokens=1.0),
    }
    async with contextlib.AsyncExitStack() as stack:
        started = {}
        for name, faults in sandboxes.items():
            started[name] = sandbox = Sandbox(SandboxOptions(port=0, faults=faults))
            await sandbox.start()
            stack.push_async_callback(sandbox.stop)
        untrusted = await stack.enter_async_context(Platform(tls))
        recovering = await stack.enter_async_context(Platform())
        recovering.respond(outcome(503))
        yield Backends(**started, untrusted=untrusted, recovering=recovering)


def _settings_for(backend: Sandbox, platform: str | None = None, **sections: Any) -> dict[str, Any]:
    demo = {"default": {"client_id": "hospital-demo", "client_secret": "sandbox-secret"}}
    base = platform or backend.fhir_base_url
    return gateway_settings(base, backend.token_url, credentials=demo, **sections)


def _cases(backends: Backends, directory: Path) -> dict[str, GatewayCase]:
    (directory / "secret").write_text("wrong")
    refused = _settings_for(backends.healthy)
    refused["credentials"]["default"] = {
        "client_id": "hospital-demo",
        "client_secret_file": str(directory / "secret"),
    }
    waiting = _settings_for(backends.slow_sso, limits={"max_concurrent_requests": 3})
    waiting["sso"]["timeout"] = 30
    slow = _settings_for(backends.slow)
    slow["platform"] |= {"max_connections": 8, "connect_timeout": 1}
    return {
        HEALTHY: GatewayCase(_settings_for(backends.healthy), 0.1),
        "refused": GatewayCase(refused),
        "expiring": GatewayCase(_settings_for(backends.short_lived)),
        "waiting": GatewayCase(waiting, 0.4),
        "throttled": GatewayCase(_settings_for(backends.throttling)),
        "down": GatewayCase(
            _settings_for(backends.failing, audit={"on_failure": "drop"}), 0.2, _FULL_DISK
        ),
        "slow": GatewayCase(slow, 0.5),
        "killed": GatewayCase(_settings_for(backends.rejecting), 0.4),
        "untrusted": GatewayCase(_with_certificates(backends, directory), 0.5),
        "blocked": GatewayCase(_settings_for(backends.healthy), 0.5, _FULL_DISK),
        "queueing": GatewayCase(_with_outbox(backends, directory / "outbox.db")),
        "shut": GatewayCase(_with_outbox(backends, directory / "gone" / "outbox.db")),
    }


def _with_outbox(backends: Backends, file: Path) -> dict[str, Any]:
    outbox = {
        "enabled": True,
        "url": f"sqlite:///{file}",
        "encryption_key": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "max_entries": 3,
        "max_share": 1,
    }
    callers = [{"name": "lab", "networks": ["127.0.0.1/32"], "outbox": "always"}]
    return _settings_for(backends.healthy, backends.recovering.url, outbox=outbox, callers=callers)


def _with_certificates(backends: Backends, directory: Path) -> dict[str, Any]:
    """Return settings with certificates about to expire.

    The gateway's own expires in ten days, the trusted one in two; the platform uses a certificate
    of another CA.
    """
    authority = trustme.CA()
    now = datetime.datetime.now(datetime.UTC)
    ours = authority.issue_cert("localhost", not_after=now + datetime.timedelta(days=10))
    trusted = authority.issue_cert("localhost", not_after=now + datetime.timedelta(days=2))
    files = {
        "cert.pem": ours.cert_chain_pems[0],
        "key.pem": ours.private_key_pem,
        "ca.pem": trusted.cert_chain_pems[0],
    }
    for name, content in files.items():
        content.write_to_path(str(directory / name))
    tls = {"cert_file": str(directory / "cert.pem"), "key_file": str(directory / "key.pem")}
    settings = _settings_for(backends.healthy, backends.untrusted.url, listen={"tls": tls})
    settings["platform"]["ca_file"] = str(directory / "ca.pem")
    return settings


async def record_alerts(directory: Path) -> AlertRecording:
    """Run all gateways with their faults.

    An alert that has not fired within `_PATIENCE` is missing in the result, and the tests fail.
    """
    recording = AlertRecording()
    async with prometheus.fast_prometheus(directory) as watcher, _backends() as backends:
        await _until(watcher, recording, lambda: recording.has_fired("DhpGatewayAbsent"))
        async with _gateways(
            _cases(backends, directory), directory, watcher, recording
        ) as gateways:
            steps = asyncio.gather(
                _reject_secrets(directory, watcher),
                _stop_sso(backends.short_lived, watcher),
                _fail_queued_writes(gateways["queueing"].url, backends.recovering, watcher),
                _reset_connections(gateways["slow"].url),
            )
            other_alerts = [alert for alert in EXPECTED if alert != "DhpGatewayDown"]
            await _until(watcher, recording, lambda: all(map(recording.has_fired, other_alerts)))
            await steps
            gateways["killed"].process.popen.kill()
            await _until(watcher, recording, lambda: recording.has_fired("DhpGatewayDown"))
            for path in prometheus.DASHBOARDS:
                queries = prometheus.queries(prometheus.dashboard(path)).items()
                recording.series_counts[path.name] = {
                    title: len(await watcher.query(expr)) for title, expr in queries
                }
    return recording


async def _until(watcher: Prometheus, recording: AlertRecording, done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not done() and time.monotonic() < deadline:
        await asyncio.sleep(_POLL_INTERVAL)
        for alert in await watcher.active_alerts():
            name = alert["labels"]["alertname"]
            recording.texts[name] = alert["annotations"]
        for series in await watcher.query('last_over_time(ALERTS{alertstate="firing"}[5m])'):
            where = series["metric"].get("instance", "")
            recording.fired.setdefault(series["metric"]["alertname"], set()).add(where)


@contextlib.asynccontextmanager
async def _gateways(
    cases: dict[str, GatewayCase], directory: Path, watcher: Prometheus, recording: AlertRecording
) -> AsyncIterator[dict[str, GatewayProcess]]:
    """Run the gateways with their callers; Prometheus scrapes them once all of them respond."""
    gateways = {}
    callers: list[Awaitable[None]] = []
    timeout = aiohttp.ClientTimeout(total=_CALLER_TIMEOUT)
    connector = aiohttp.TCPConnector(ssl=False, limit=0)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            for name, case in cases.items():
                (directory / name).mkdir()
                gateways[name] = start_gateway(case.settings, directory / name, case.prefix)
            for gateway in gateways.values():
                await gateway.wait_for_status(200, "/livez")
            watcher.watch({n: g.admin_url.removeprefix("http://") for n, g in gateways.items()})
            callers = [
                asyncio.ensure_future(_call(session, gateways[name], case))
                for name, case in cases.items()
                if case.interval is not None
            ]
            yield gateways
        finally:
            for caller in callers:
                caller.cancel()
            await asyncio.gather(*callers, return_exceptions=True)
            for name, gateway in gateways.items():
                gateway.process.popen.kill()
                gateway.process.popen.wait()
                recording.logs[name] = gateway.process.stderr


async def _call(session: aiohttp.ClientSession, gateway: GatewayProcess, case: GatewayCase) -> None:
    url = gateway.url
    if "tls" in case.settings.get("listen", {}):
        url = url.replace("http:", "https:")
    async with asyncio.TaskGroup() as requests:
        number = 0
        while True:
            requests.create_task(_ask(session, url + _PATHS[number % len(_PATHS)]))
            number += 1
            await asyncio.sleep(case.interval or 0)


async def _ask(session: aiohttp.ClientSession, url: str) -> None:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError):
        async with session.get(url) as answer:
            await answer.read()


async def _reset_connections(url: str) -> None:
    """Send requests and reset each connection before its response."""
    host = url.removeprefix("http://").partition("/")[0]
    for _ in range(20):
        _, writer = await asyncio.open_connection(*host.split(":"))
        writer.write(f"GET /fhir{_PATHS[0]} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await asyncio.sleep(1)
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        writer.transport.abort()


async def _reject_secrets(directory: Path, watcher: Prometheus) -> None:
    """Replace the secret by another wrong one, and then break the settings."""
    refusals = 'dhp_gateway_token_requests_total{instance="refused", outcome="refused"}'
    await _until_true(watcher, f"{refusals} >= 1")
    (directory / "secret").write_text("wrong again")
    await _until_true(watcher, f"{refusals} >= 2")
    (directory / "refused" / "gateway.yaml").write_text(yaml.safe_dump({"listen": "nowhere"}))


async def _stop_sso(sso: Sandbox, watcher: Prometheus) -> None:
    await _until_true(
        watcher, 'dhp_gateway_token_requests_total{instance="expiring", outcome="ok"} >= 1'
    )
    await sso.stop()


async def _fail_queued_writes(url: str, platform: Platform, watcher: Prometheus) -> None:
    """Let queued writes fail or become unclear when the platform is back, and fill the outbox."""
    entries = 'dhp_gateway_outbox_entries{instance="queueing", state="%s"} >= %d'
    async with aiohttp.ClientSession() as session:
        observation = {"resourceType": "Observation", "subject": {"reference": "Patient/b"}}
        patient = {"resourceType": "Patient", "id": "a"}
        await _write(session, "PUT", f"{url}/Patient/a", patient)
        await _write(session, "POST", f"{url}/Observation", observation)
        await _write(session, "PUT", f"{url}/Patient/c", {**patient, "id": "c"})
        await _until_true(watcher, entries % ("waiting", 3))
        await _until_true(watcher, 'ALERTS{alertname="DhpGatewayOutboxAgeing"}')
        platform.respond(_reject_or_reset)
        for state in ("failed", "unclear"):
            await _until_true(watcher, entries % (state, 1))
        for _ in range(10):
            await _write(session, "PUT", f"{url}/Patient/a", patient)
            await asyncio.sleep(0.5)


async def _write(session: aiohttp.ClientSession, method: str, url: str, body: Any) -> None:
    fields = {"Content-Type": "application/fhir+json"}
    async with session.request(method, url, data=json.dumps(body), headers=fields) as answer:
        await answer.read()


async def _reject_or_reset(connection: PlatformConnection) -> None:
    """Reject an update; reset the connection of a create, so that it is in doubt.

    An update of Patient/c fails again and again; reads succeed.
    """
    await read_body(connection.reader, connection.request)
    if connection.request.method == "GET":
        connection.writer.write(fhir())
        return
    if connection.request.method == "POST":
        connection.reset()
        return
    connection.writer.write(
        outcome(500 if connection.request.target.endswith("/Patient/c") else 422)
    )
    await connection.writer.drain()


async def _until_true(watcher: Prometheus, expr: str) -> None:
    deadline = time.monotonic() + _TIMEOUT
    while not await watcher.query(expr):
        assert time.monotonic() < deadline, expr
        await asyncio.sleep(_POLL_INTERVAL)
