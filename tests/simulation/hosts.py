"""The SSO and the platform as hosts of the simulated network, which know what took effect."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson

from tests.simulation.history import Arrival, Effect, History, Issued, Renewal, TokenRequest
from tests.simulation.http_messages import Message, MessageReader, response
from tests.simulation.plan import SSO_TIMEOUT, Plan
from tests.simulation.simulated_loop import Network, SimulatedLoop

IDENTIFIERS = "urn:simulation:version"
# Seconds that a token request takes at most.
_SSO_DELAY = 0.3
_PAGE = b"<html><body>Maintenance</body></html>"


class Weather:
    """Which faults of the plan are active; `rng` decides whether one strikes."""

    def __init__(self, loop: SimulatedLoop, rng: random.Random) -> None:
        self._loop = loop
        self._rng = rng
        self._until: dict[str, tuple[float, float]] = {}

    def begin(self, kind: str, seconds: float, value: float) -> None:
        self._until[kind] = self._loop.now() + seconds, value

    def strikes(self, kind: str) -> bool:
        """Return whether a fault strikes now."""
        until, probability = self._until.get(kind, (0.0, 0.0))
        return self._loop.now() < until and self._rng.random() < probability

    def delay(self, longest: float) -> float:
        return self._rng.uniform(0.0, longest)

    def size(self, longest: int) -> int:
        return self._rng.randrange(longest)


class HostConnection(asyncio.Protocol):
    """A connection to a host, which responds to one request after the other."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._reader = MessageReader()
        self._waiting: list[tuple[Message, float]] = []
        self._is_busy = False
        self.peer = ""
        self.is_lost = False
        self.on_lost: Callable[[], None] = lambda: None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.peer = transport.get_extra_info("peername")[0]

    def data_received(self, data: bytes) -> None:
        sent_at = self._host.network.sent_at
        self._waiting += [(message, sent_at) for message in self._reader.feed(data)]
        self._next()

    def eof_received(self) -> None:
        self.on_lost()

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self.on_lost()

    def send(self, data: bytes, *, close: bool = False) -> None:
        """End the exchange with a response."""
        if not self.is_lost:
            self.transport.write(data)
            if close:
                self.transport.close()
        self._is_busy = False
        self._next()

    def abort(self) -> None:
        self.transport.abort()

    def _next(self) -> None:
        if self._waiting and not self._is_busy and not self.is_lost:
            self._is_busy = True
            self._host.respond(self, *self._waiting.pop(0))


class Host:
    """A server of the simulated network."""

    name: str

    def __init__(self, loop: SimulatedLoop, plan: Plan, history: History, weather: Weather) -> None:
        self.loop = loop
        self.network: Network = loop.network
        self.plan = plan
        self.history = history
        self.weather = weather

    async def listen(self) -> None:
        await self.loop.create_server(lambda: HostConnection(self), self.name, 8080)

    def respond(self, connection: HostConnection, message: Message, sent_at: float) -> None:
        raise NotImplementedError


class Sso(Host):
    """Gives numbered tokens to the clients `client-0`, `client-1` …, and to users `user-0` …

    A code and a refresh token can be used once.
    """

    name = "sso"

    def __init__(self, loop: SimulatedLoop, plan: Plan, history: History, weather: Weather) -> None:
        super().__init__(loop, plan, history, weather)
        self._used: dict[str, TokenRequest] = {}
        self._count = 0

    def authorize(self, user: str) -> str:
        """Return the code of a user who has signed in."""
        return self._grant_to(user)

    def respond(self, connection: HostConnection, message: Message, sent_at: float) -> None:
        now = self.loop.now()
        if message.method != "POST":
            # There is no discovery document.
            connection.send(response(404, b""))
            return
        form = parse_qs(message.body.decode())
        grant = form.get("grant_type", [""])[0]
        credential = form.get("client_id", [""])[0]
        granted = form.get("code" if grant == "authorization_code" else "refresh_token")
        if granted is not None:
            credential = granted[0].rpartition("-")[0]
        asked = TokenRequest(credential, connection.peer, sent_at, now, grant)
        if granted is not None:
            asked.is_valid = self._use(granted[0], asked)
        self.history.token_requests.append(asked)
        self.history.tell(now, f"sso: {connection.peer} asks for a token of {credential}")
        if self.weather.strikes("sso resets"):
            # One that waited at a cut link was given up, and nothing tells when.
            asked.ended_at = sent_at if now - sent_at >= SSO_TIMEOUT else now
            connection.on_lost = lambda: None
            connection.abort()
            return
        # One that the gateway gives up has ended when it closed the connection.
        connection.on_lost = lambda: self._end(asked, self.network.sent_at)
        delay = self.weather.delay(4.0 if self.weather.strikes("sso is slow") else _SSO_DELAY)
        self.loop.call_later(delay, self._answer, connection, asked, credential)

    def _answer(self, connection: HostConnection, asked: TokenRequest, credential: str) -> None:
        if connection.is_lost:
            return
        now = self.loop.now()
        if self.weather.strikes("sso answers 503"):
            data = response(503, b"{}", kind="application/json")
        elif self.weather.strikes("sso answers with a page"):
            data = response(200, _PAGE, kind="text/html")
        elif not asked.is_valid:
            self.history.tell(now, f"sso: refuses what {credential} used before")
            data = response(400, b'{"error":"invalid_grant"}', kind="application/json")
        else:
            token = f"token-{credential}-{len(self.history.tokens)}"
            lifetime = self.plan.token_lifetime
            self.history.tokens[token] = Issued(
                token, credential, asked.sent_at, now, asked.begun_at + lifetime
            )
            asked.token = token
            self.history.tell(now, f"sso: gives {token}")
            body = {"access_token": token, "token_type": "Bearer", "expires_in": lifetime}
            if asked.grant != "client_credentials":
                body["refresh_token"] = self._grant_to(credential)
            data = response(200, orjson.dumps(body), kind="application/json")
        self._end(asked, now)
        connection.send(data)

    def _grant_to(self, credential: str) -> str:
        """Return a new code or refresh token, whose name says whose it is."""
        self._count += 1
        return f"{credential}-{self._count}"

    def _use(self, granted: str, asked: TokenRequest) -> bool:
        """Return whether this is the first use of a code or refresh token."""
        before = self._used.setdefault(granted, asked)
        if asked.grant == "refresh_token":
            self.history.renewals.append(Renewal(asked, None if before is asked else before))
        return before is asked

    def _end(self, asked: TokenRequest, moment: float) -> None:
        if asked.ended_at is None or moment < asked.ended_at:
            asked.ended_at = moment

    def revoke_all(self) -> None:
        now = self.loop.now()
        for token in self.history.tokens.values():
            if token.revoked_at is None:
                token.revoked_at = now


class Platform(Host):
    """Keeps Patients and Observations, and notes each write that takes effect."""

    name = "platform"

    def __init__(self, loop: SimulatedLoop, plan: Plan, history: History, weather: Weather) -> None:
        super().__init__(loop, plan, history, weather)
        self._resources: dict[str, dict[str, Any]] = {}

    def respond(self, connection: HostConnection, message: Message, sent_at: float) -> None:
        now = self.loop.now()
        kind, _, token = message.fields.get("authorization", "").partition(" ")
        arrival = Arrival(
            now,
            sent_at,
            connection.peer,
            message.method,
            message.target,
            message.fields.get("x-request-id", ""),
            token if kind == "Bearer" else None,
        )
        self.history.arrivals.append(arrival)
        if self.weather.strikes("platform resets before it acts"):
            self._tell(arrival, "is reset before it is read")
            connection.abort()
            return
        arrival.status, body, fields = self._act(message, arrival)
        self._tell(arrival, f"gets {arrival.status}")
        delay = self.weather.delay(7.0) if self.weather.strikes("platform is slow") else 0.0
        data = response(arrival.status, body, *fields)
        self.loop.call_later(delay, self._send, connection, data, arrival)

    def _tell(self, arrival: Arrival, what: str) -> None:
        self.history.tell(
            self.loop.now(),
            f"platform: {arrival.method} {arrival.target} [{arrival.request_id}] of"
            f" {arrival.process} with {arrival.token} {what}",
        )

    def _send(self, connection: HostConnection, data: bytes, arrival: Arrival) -> None:
        if connection.is_lost:
            return
        if self.weather.strikes("platform resets after it acted"):
            self._tell(arrival, "is reset without its response")
            connection.abort()
        elif self.weather.strikes("platform pauses within its response"):
            self._tell(arrival, "gets its response in two parts")
            size = self.weather.size(len(data))
            connection.transport.write(data[:size])
            self.loop.call_later(self.weather.delay(3.0), connection.send, data[size:])
        elif self.weather.strikes("platform breaks off its response"):
            self._tell(arrival, "gets a part of its response")
            connection.send(data[: self.weather.size(len(data))], close=True)
        else:
            connection.send(data, close=self.weather.strikes("platform closes after each response"))

    def _act(self, message: Message, arrival: Arrival) -> tuple[int, bytes, tuple[str, ...]]:
        issued = self.history.tokens.get(arrival.token or "")
        if issued is None or not self._is_valid(issued):
            return 401, _outcome("login"), ()
        if self.weather.strikes("platform answers 503"):
            return 503, _outcome("transient"), ()
        if self.weather.strikes("platform answers 503 with Retry-After"):
            return 503, _outcome("transient"), ("Retry-After: 2",)
        done = self._interact(message, arrival)
        for status in (502, 500):
            if self.weather.strikes(f"platform answers {status} after it acted"):
                return status, _outcome("exception"), ()
        return done

    def _is_valid(self, issued: Issued) -> bool:
        now = self.loop.now()
        return now < issued.expires_at and issued.revoked_at is None

    def _interact(self, message: Message, arrival: Arrival) -> tuple[int, bytes, tuple[str, ...]]:
        target = urlsplit(message.target)
        path = target.path.removeprefix("/fhir/")
        if path == "metadata":
            return 200, orjson.dumps(self._statement()), ()
        if message.method == "GET" and "/" in path:
            found = self._resources.get(path)
            if found is None:
                return 404, _outcome("not-found"), ()
            # A read tells whose answer it is.
            echo = {"url": "urn:simulation:request", "valueString": arrival.request_id}
            return 200, orjson.dumps(found | {"extension": [echo]}), _version(found)
        if message.method == "GET":
            return 200, orjson.dumps(self._search(path, target.query)), ()
        if message.method == "PUT":
            return self._put(path, message, arrival)
        return self._create(path, message, arrival)

    def _put(
        self, path: str, message: Message, arrival: Arrival
    ) -> tuple[int, bytes, tuple[str, ...]]:
        is_new = path not in self._resources
        stored = self._store(path, orjson.loads(message.body), arrival)
        return 201 if is_new else 200, orjson.dumps(stored), _version(stored)

    def _create(
        self, kind: str, message: Message, arrival: Arrival
    ) -> tuple[int, bytes, tuple[str, ...]]:
        condition = message.fields.get("if-none-exist")
        if condition is not None and self.plan.conditional_create:
            found = self._search(kind, condition)["entry"]
            if found:
                present = found[0]["resource"]
                return 200, orjson.dumps(present), _version(present)
        path = f"{kind}/{len(self._resources)}-new"
        stored = self._store(path, orjson.loads(message.body), arrival)
        location = f"Location: http://platform:8080/fhir/{path}"
        return 201, orjson.dumps(stored), (location, *_version(stored))

    def _store(self, path: str, resource: dict[str, Any], arrival: Arrival) -> dict[str, Any]:
        before = self._resources.get(path)
        version = 1 if before is None else int(before["meta"]["versionId"]) + 1
        stored = resource | {"id": path.partition("/")[2], "meta": {"versionId": str(version)}}
        self._resources[path] = stored
        content = stored["identifier"][0]["value"]
        self.history.effects.append(Effect(self.loop.now(), path, content, arrival.request_id))
        return stored

    def _search(self, kind: str, query: str) -> dict[str, Any]:
        value = unquote(parse_qs(query).get("identifier", [""])[0]).rpartition("|")[2]
        found = [
            resource
            for path, resource in self._resources.items()
            if path.startswith(f"{kind}/") and resource["identifier"][0]["value"] == value
        ]
        link = {"relation": "self", "url": f"http://platform:8080/fhir/{kind}?{query}"}
        return {
            "resourceType": "Bundle",
            "type": "searchset",
            "total": len(found),
            "link": [link],
            "entry": [{"resource": each, "search": {"mode": "match"}} for each in found],
        }

    def _statement(self) -> dict[str, Any]:
        interactions = [{"code": code} for code in ("read", "update", "create", "search-type")]
        resources = [
            {
                "type": kind,
                "interaction": interactions,
                "conditionalCreate": self.plan.conditional_create,
                "searchParam": [{"name": "identifier", "type": "token"}],
            }
            for kind in ("Patient", "Observation")
        ]
        return {
            "resourceType": "CapabilityStatement",
            "status": "active",
            "date": "2026-01-01",
            "kind": "instance",
            "fhirVersion": "5.0.0",
            "format": ["json"],
            "rest": [{"mode": "server", "resource": resources}],
        }


def _version(resource: dict[str, Any]) -> tuple[str, ...]:
    return (f'ETag: W/"{resource["meta"]["versionId"]}"',)


def _outcome(code: str) -> bytes:
    issue = {"severity": "error", "code": code}
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
