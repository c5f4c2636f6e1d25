"""Real FHIR servers: responses through the gateway equal those without it.

All servers get the same requests, behind a proxy that checks oidc-provider's tokens and records
the exchanges. The doubles of other tests know only the cases that their authors thought of.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.doubles.processes import GatewayProcess, free_port, start_gateway
from tests.doubles.recording_proxy import RecordingProxy
from tests.doubles.relay import Relay
from tests.doubles.sections import gateway_settings
from tests.doubles.waiting import wait_until
from tests.extent import NIGHTLY
from tests.interop.bearer_guard import BearerGuard
from tests.interop.drive import FHIR, LEGS, World, compare_routes
from tests.interop.hapi_legs import HAPI_LEGS
from tests.interop.oracle import Oracle
from tests.interop.queued_writes import planned, send, updates, verify_writes, wait_for_result
from tests.interop.servers import FhirServer, Fhirstarter, Hapi, Medplum, Sekmet, token_of
from tests.interop.stages import AUDIENCE, SECRETS, Begin, Sso
from tests.interop.table import describe, not_offered, note

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVERS: dict[type[FhirServer], Callable[[pytest.FixtureRequest], dict[str, Any]]] = {
    Sekmet: lambda request: {"python": request.getfixturevalue("sekmet_python")},
    Fhirstarter: lambda request: {"python": request.getfixturevalue("fhirstarter_python")},
    Hapi: lambda request: request.getfixturevalue("hapi"),
    Medplum: lambda request: {"node": request.getfixturevalue("node")},
}


@dataclass(frozen=True, slots=True)
class ServerSetup:
    """A server, the proxy in front of it, and a gateway that uses one client for all callers."""

    server: FhirServer
    front: RecordingProxy
    guard: BearerGuard
    settings: dict[str, Any]
    gateway: GatewayProcess
    token: str

    @contextlib.asynccontextmanager
    async def worlds(self) -> AsyncIterator[tuple[World, World]]:
        """Yield the routes to the server, directly and through the gateway."""
        base = f"{self.server.public}{self.server.base_path}"
        async with aiohttp.ClientSession() as session:
            bearer = {"Authorization": f"Bearer {self.token}"}
            yield World(session, base, bearer), World(session, self.gateway.url, behind=base)

    def new_relay(self) -> Relay:
        """Return a relay to the proxy, which can interrupt the connection."""
        return Relay(int(self.front.url.rpartition(":")[2]))

    def queueing(self, relay: Relay, directory: Path, *callers: str) -> dict[str, Any]:
        """Return settings of a gateway that queues these callers' writes and uses the relay."""
        key = base64.urlsafe_b64encode(bytes(range(32))).decode()
        base_url = f"http://127.0.0.1:{relay.port}{self.server.base_path}"
        return {
            **self.settings,
            "platform": {"fhir_base_url": base_url},
            "outbox": {
                "enabled": True,
                "url": f"sqlite:///{directory}/outbox.db",
                "encryption_key": key,
            },
            "callers": [
                {"name": each, "api_key": f"key-of-{each}", "outbox": "always"} for each in callers
            ],
            "circuit_breaker": {"open_for": 1},
        }


@pytest_asyncio.fixture(
    scope="module",
    loop_scope="module",
    params=[
        pytest.param(each, marks=pytest.mark.column("FHIR servers", each.name), id=each.__name__)
        for each in SERVERS
    ],
)
async def setup(
    request: pytest.FixtureRequest, sso: Sso, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServerSetup]:
    kind: type[FhirServer] = request.param
    directory = tmp_path_factory.mktemp(kind.__name__)
    port = free_port()
    server = kind(directory, public=f"http://127.0.0.1:{port}", **SERVERS[kind](request))
    async with aiohttp.request("GET", sso.jwks_url) as answer:
        guard = BearerGuard(await answer.json(), sso.issuer, AUDIENCE)
    credentials = {"default": sso.credential("lab-basic")}
    base = f"{server.public}{server.base_path}"
    settings = gateway_settings(base, sso.token_url, credentials=credentials)
    try:
        await asyncio.to_thread(server.start)
        async with RecordingProxy(server.origin, guard).running(port) as front:
            token = await token_of(sso.token_url, "lab-post", SECRETS["lab-post"])
            gateway = start_gateway(settings, directory)
            try:
                await gateway.wait_for_status(200)
                yield ServerSetup(server, front, guard, settings, gateway, token)
            finally:
                gateway.process.terminate()
    finally:
        server.end()


@pytest.fixture(autouse=True)
def _described(request: pytest.FixtureRequest, setup: ServerSetup) -> None:
    server = setup.server
    describe(request.node, f"{server.version()}, {server.seconds:.1f} s to start")


@pytest.mark.parametrize(
    "leg", [pytest.param(each, marks=pytest.mark.row(each), id=each) for each in LEGS]
)
async def test_responses_equal_direct_ones(
    setup: ServerSetup, leg: str, hapi_oracle: Oracle, request: pytest.FixtureRequest
) -> None:
    """Responses are equal in status, fields and octets, but for links, which name the gateway.

    HAPI's parser reads the same resources on both sides of the gateway, in requests as well.
    """
    if leg in setup.server.not_offered:
        not_offered(request.node, setup.server.not_offered[leg])
        return
    async with setup.worlds() as (direct, through):
        await compare_routes(direct, through, [leg])
        assert await hapi_differences(setup, through, hapi_oracle) == []


@pytest.mark.parametrize(
    "leg", [pytest.param(each, marks=pytest.mark.row(each), id=each) for each in HAPI_LEGS]
)
async def test_responses_of_hapi_equal_direct_ones(
    setup: ServerSetup, leg: str, hapi_oracle: Oracle, request: pytest.FixtureRequest
) -> None:
    if not isinstance(setup.server, Hapi):
        not_offered(request.node, "sent to HAPI FHIR only")
        return
    async with setup.worlds() as (direct, through):
        await compare_routes(direct, through, [leg], HAPI_LEGS)
        assert await hapi_differences(setup, through, hapi_oracle) == []


async def hapi_differences(setup: ServerSetup, through: World, oracle: Oracle) -> list[str]:
    """Return where HAPI's parser reads a body differently on the two sides of the gateway."""
    seen = {each.headers.get("X-Request-Id"): each for each in setup.front.requests}
    bases = (through.base, through.behind)
    found = []
    for each in through.exchanges:
        upstream = seen.get(each.request_id)
        # A local response has no other side. Of a CapabilityStatement `security` is removed.
        if upstream is not None and not upstream.call.endswith("/metadata"):
            bodies = (each.sent, upstream.body, each.sent_type)
            found.append(await oracle.same(*bodies, *bases, setup.server.release))
            bodies = (upstream.response_body, each.received, each.received_type)
            found.append(await oracle.same(*bodies, *reversed(bases), setup.server.release))
    return [text for text in found if text is not None]


WRITES, PATIENTS = (1000, 40) if NIGHTLY else (200, 20)


async def kill_twice(setup: ServerSetup, relay: Relay, count_done: Callable[[], int]) -> int:
    """Restore the connection, then kill the server twice during deliveries.

    The connection is cut instead where a kill loses data or, except at night, takes long. Return
    the number of kills.
    """
    await relay.restore()
    kills = 0
    for share in (0.2, 0.6):
        await wait_until(lambda share=share: count_done() >= WRITES * share)  # type: ignore[misc]
        may_be_killed = NIGHTLY or not kills or not setup.server.starts_slowly
        if setup.server.survives and may_be_killed:
            kills += 1
            setup.server.end()
            relay.cut()
            await asyncio.to_thread(setup.server.start)
        relay.cut()
        await relay.restore()
    return kills


@pytest.mark.row("queued writes, server killed twice")
async def test_queued_writes_are_delivered_once_and_in_order(
    setup: ServerSetup, begin_gateway: Begin, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    started = time.monotonic()
    async with setup.new_relay() as relay, setup.worlds() as (direct, _):
        gateway = begin_gateway(setup.queueing(relay, tmp_path, "his"))
        await gateway.wait_for_status(200)
        conditional = "conditional writes" not in setup.server.not_offered
        patients = [
            planned(await direct.create_patient(), WRITES // PATIENTS, conditional=conditional)
            for _ in range(PATIENTS)
        ]
        before = len(setup.front.requests)

        def done() -> list[Any]:
            return [each for each in setup.front.requests[before:] if each.status in {200, 201}]

        relay.cut()
        connector = aiohttp.TCPConnector(limit=0)
        headers = {"X-Api-Key": "key-of-his"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            writes = [write for patient in patients for write in patient.writes]

            async def kill() -> int:
                await wait_until(lambda: sum(bool(write.place) for write in writes) >= WRITES / 4)
                return await kill_twice(setup, relay, lambda: len(done()))

            sends = (send(session, gateway.url, each) for each in patients)
            kills, *_ = await asyncio.gather(kill(), *sends)
            queued = sum(bool(write.place) for write in writes)
            for write in writes:
                await wait_for_result(session, write)
        delivered = [each for each in done() if each.method in {"POST", "PUT"}]
        seconds = time.monotonic() - started
        for patient in patients:
            await verify_writes(direct, patient, delivered)
    unclear = sum(write.result == "unclear" for write in writes)
    memory = "" if setup.server.survives else ": its data are in memory"
    cuts = f"{kills} times the server was killed, {2 - kills} times its line was cut{memory}"
    note(request.node, f"{queued} of {WRITES} were queued, {unclear} are unclear; {cuts}")
    print(f"{setup.server.name}: {WRITES} writes in {seconds:.1f} s")  # noqa: T201


WARDS = tuple(f"ward-{number}" for number in range(8))


@pytest.mark.row("queued writes that collide")
async def test_queued_writes_with_409_are_retried(
    setup: ServerSetup, begin_gateway: Begin, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    async with setup.new_relay() as relay, setup.worlds() as (direct, _):
        gateway = begin_gateway(setup.queueing(relay, tmp_path, *WARDS))
        await gateway.wait_for_status(200)
        path = await direct.create_patient()
        before = len(setup.front.requests)
        relay.cut()
        async with contextlib.AsyncExitStack() as sessions:
            work = [
                (
                    await sessions.enter_async_context(
                        aiohttp.ClientSession(headers={"X-Api-Key": f"key-of-{ward}"})
                    ),
                    updates(path, 10),
                )
                for ward in WARDS
            ]
            await asyncio.gather(*(send(session, gateway.url, each) for session, each in work))
            await relay.restore()
            for session, each in work:
                for write in each.writes:
                    await wait_for_result(session, write)
    results = {write.result for _, each in work for write in each.writes}
    statuses = [each.status for each in setup.front.requests[before:] if each.method == "PUT"]
    assert results == {"200"}
    if collisions := statuses.count(409):
        note(request.node, f"{collisions} times 409")
    else:
        not_offered(request.node, "never answers 409")


CLINICS = {"north": "lab-post", "south": "lab-ec"}
REQUESTS = 200


async def clinic_requests(
    session: aiohttp.ClientSession, base: str, name: str, family: str
) -> None:
    """Send a clinic's requests concurrently. All responses are about its own patients only."""
    other = next(each for each in CLINICS if each != name)

    async def ask(method: str, path: str, number: int, body: Any = None) -> str:
        fields = {"X-Api-Key": f"key-of-{name}", "X-Request-Id": f"{name}-{number}"}
        data = None if body is None else json.dumps(body)
        headers = fields | {"Content-Type": FHIR, "Prefer": "return=representation"}
        url = f"{base}{path}"
        async with session.request(method, url, data=data, headers=headers) as answer:
            text = await answer.text()
            assert answer.headers["X-Request-Id"] == f"{name}-{number}"
            assert answer.status in {200, 201}, text
            # Some servers return no body for a write.
            assert family in text or (not text and method != "GET")
            assert other not in text
            return answer.headers.get("Location", "")

    body = {"resourceType": "Patient", "name": [{"family": family}]}
    made = await asyncio.gather(*(ask("POST", "/Patient", number, body) for number in range(20)))
    ids = [each.partition("/Patient/")[2].partition("/")[0] for each in made]

    async def work(number: int) -> None:
        id_ = ids[number % len(ids)]
        if number % 4 == 0:
            await ask("PUT", f"/Patient/{id_}", number, body | {"id": id_})
        elif number % 4 == 1:
            await ask("GET", f"/Patient?family={family}", number)
        else:
            await ask("GET", f"/Patient/{id_}", number)

    await asyncio.gather(*(work(number) for number in range(20, REQUESTS)))


@pytest.mark.row("two clinics at once")
async def test_concurrent_callers_get_their_own_responses(
    setup: ServerSetup, begin_gateway: Begin, sso: Sso
) -> None:
    credentials = {name: sso.credential(client) for name, client in CLINICS.items()}
    callers = [{"name": name, "api_key": f"key-of-{name}", "credential": name} for name in CLINICS]
    # On a busy machine a slow server keeps all connections for longer than the default.
    platform = setup.settings["platform"] | {"connect_timeout": 120}
    settings = {"platform": platform, "credentials": credentials, "callers": callers}
    gateway = begin_gateway(setup.settings | settings)
    await gateway.wait_for_status(200)
    families = {name: f"{name}{uuid.uuid4()}" for name in CLINICS}
    before = len(setup.front.requests)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        clinics = (clinic_requests(session, gateway.url, *each) for each in families.items())
        await asyncio.gather(*clinics)
    clients = dict(zip(setup.guard.tokens, setup.guard.clients, strict=True))
    seen = [each for each in setup.front.requests[before:] if "X-Request-Id" in each.headers]
    assert len(seen) == len(CLINICS) * REQUESTS
    for each in seen:
        name = each.headers["X-Request-Id"].partition("-")[0]
        assert clients[each.headers["Authorization"].removeprefix("Bearer ")] == CLINICS[name]


def entry(method: str, url: str, **resource: Any) -> dict[str, Any]:
    body = {"resource": {"resourceType": url.partition("/")[0], **resource}} if resource else {}
    return {"request": {"method": method, "url": url}, **body}


def batch(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": "batch", "entry": list(entries)}


LIMITS = {
    "reader": {"interactions": ["read", "search-type"], "resources": ["Patient"]},
    "writer": {"interactions": ["create", "update", "batch"], "resources": ["Patient"]},
    "caller": {
        "interactions": ["operation"],
        "resources": ["Patient"],
        "operations": ["$validate"],
    },
}
_NEW = {"resourceType": "Patient", "active": True}
_OBSERVATION = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
_PATIENT_ENTRY = entry("POST", "Patient", active=True)
# By caller: method, path, body and whether the request is forwarded to the server.
REQUESTS_OF: dict[str, list[tuple[str, str, Any, bool]]] = {
    "reader": [
        ("GET", "PATIENT", None, True),
        ("GET", "/Patient?family=x", None, True),
        ("POST", "/Patient/_search", "family=x", True),
        ("GET", "/Observation?code=x", None, False),
        ("GET", "PATIENT/_history", None, False),
        ("GET", "PATIENT/_history/1", None, False),
        ("GET", "PATIENT/$everything", None, False),
        ("GET", "/Patient?_revinclude=Observation:subject", None, False),
        ("POST", "/Patient", _NEW, False),
        ("PUT", "PATIENT", _NEW, False),
        ("DELETE", "PATIENT", None, False),
        ("POST", "", batch(entry("GET", "Patient/1")), False),
    ],
    "writer": [
        ("POST", "/Patient", _NEW, True),
        ("POST", "/Observation", _OBSERVATION, False),
        ("DELETE", "PATIENT", None, False),
        ("GET", "PATIENT", None, False),
        ("POST", "", batch(_PATIENT_ENTRY), True),
        ("POST", "", batch(_PATIENT_ENTRY, entry("POST", "Observation", status="final")), False),
        ("POST", "", batch(_PATIENT_ENTRY, entry("DELETE", "Patient/1")), False),
        ("POST", "", batch(_PATIENT_ENTRY, entry("GET", "Patient/1")), False),
        ("POST", "", batch(_PATIENT_ENTRY) | {"type": "transaction"}, False),
        ("POST", "", batch(_PATIENT_ENTRY | {"resource": _OBSERVATION}), False),
    ],
    "caller": [
        ("POST", "/Patient/$validate", _NEW, True),
        ("POST", "/Patient/$everything", None, False),
        ("GET", "PATIENT/$everything", None, False),
        ("POST", "/$export", None, False),
        ("GET", "PATIENT", None, False),
    ],
}


@pytest.mark.row("limits of a caller")
async def test_forbidden_requests_do_not_reach_the_server(
    setup: ServerSetup, begin_gateway: Begin
) -> None:
    callers = [
        {"name": name, "api_key": f"key-of-{name}", "allow": allow}
        for name, allow in LIMITS.items()
    ]
    gateway = begin_gateway(setup.settings | {"callers": callers})
    await gateway.wait_for_status(200)
    async with setup.worlds() as (direct, _):
        patient = await direct.create_patient()
        for name, requests in REQUESTS_OF.items():
            world = World(direct.session, gateway.url, {"X-Api-Key": f"key-of-{name}"})
            for method, path, body, is_allowed in requests:
                before = len(setup.front.requests)
                kind = "application/x-www-form-urlencoded" if isinstance(body, str) else FHIR
                await world.ask(method, path.replace("PATIENT", patient), body, kind)
                answer = world.answers[-1]
                arrived = [each.call for each in setup.front.requests[before:]]
                what = f"{name}: {method} {path} {body}: {answer.status}, {arrived}"
                error = answer.fields.get("x-gateway-error")
                assert (error == "caller-forbidden") is not is_allowed, what
                assert len(arrived) == is_allowed, what
