"""An SSO behind its front, a platform that asks it about each token, and gateways as processes.

All of it runs on one event loop in a thread of its own, so that it lasts for the tests of a module,
each of which has a loop of its own.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import yaml

from tests.doubles.command import Result, dhp
from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body, unauthorized
from tests.doubles.processes import GatewayProcess, free_port, start_gateway
from tests.interop.sso.front import MARK, Front
from tests.interop.sso.server import TOKEN_LIFETIME, SsoServer
from tests.interop.stages import KeyFiles

T = TypeVar("T")
_POLL = 0.1
# Characters. A shorter secret may be an ordinary word, and occur as such.
_MIN_SECRET = 8
_STATEMENT = b'{"resourceType":"CapabilityStatement","fhirVersion":"5.0.0"}'


@dataclass(slots=True)
class TokenPlatform:
    """Verifies each new token at the SSO, and rejects those that must have expired."""

    server: SsoServer
    platform: Platform = field(default_factory=Platform)
    # When each token was seen for the first time.
    accepted: dict[str, float] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    # The tokens that came with each request target, in order.
    tokens: dict[str, list[str]] = field(default_factory=dict)
    _asking: dict[str, asyncio.Task[bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.platform.respond(self._answer)

    async def _answer(self, connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        token = (connection.request.header("authorization") or "").removeprefix("Bearer ")
        if await self._accepts(token):
            used = self.tokens.setdefault(connection.request.target.rpartition("/")[2], [])
            if token not in used:
                used.append(token)
            is_statement = connection.request.target.endswith("/metadata")
            connection.writer.write(fhir(_STATEMENT) if is_statement else fhir())
        else:
            self.refused.append(connection.request.target)
            connection.writer.write(unauthorized())
        await connection.writer.drain()

    async def _accepts(self, token: str) -> bool:
        """Ask once for each token; one of before may outlast the SSO's outage."""
        if (since := self.accepted.get(token)) is not None:
            return time.monotonic() < since + TOKEN_LIFETIME + 1
        task = self._asking.get(token)
        if task is None:
            task = self._asking[token] = asyncio.ensure_future(self.server.accepts(token))
            task.add_done_callback(lambda _: self._asking.pop(token))
        try:
            is_accepted = await task
        except (aiohttp.ClientError, TimeoutError):
            # The SSO is off; the platform refuses what it cannot ask about.
            return False
        if is_accepted:
            self.accepted.setdefault(token, time.monotonic())
        return is_accepted


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller got."""

    status: int
    reason: str
    retry_after: str | None
    outcome: dict[str, Any]

    @property
    def diagnostics(self) -> str:
        """Return the diagnostics of the OperationOutcome, with which an operator begins."""
        return str(self.outcome["issue"][0].get("diagnostics", "")) if self.status != 200 else ""


@dataclass(slots=True)
class Stage:
    """What the scenarios of one server share.

    `seconds` is how long its start took.
    """

    server: SsoServer
    front: Front
    platform: TokenPlatform
    directory: Path
    seconds: float = 0.0
    gateways: list[GatewayProcess] = field(default_factory=list)
    session: aiohttp.ClientSession | None = None
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    @classmethod
    def of(cls, kind: type[SsoServer], directory: Path) -> Stage:
        for name in ("server", "keys"):
            (directory / name).mkdir()
        front = Front(free_port(), free_port())
        gateway = f"http://127.0.0.1:{free_port()}"
        keys = KeyFiles(directory / "keys")
        server = kind(front.url, front.upstream, directory / "server", keys, gateway)
        return cls(server, front, TokenPlatform(server), directory)

    def open(self) -> None:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.begin(self._open()).result()
        begin = time.monotonic()
        self.server.start()
        self.seconds = time.monotonic() - begin

    async def _open(self) -> None:
        await self.front.start()
        await self.platform.platform.__aenter__()
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
        )

    def close(self) -> None:
        for gateway in self.gateways:
            gateway.process.terminate()
        self.server.stop()
        self.begin(self._close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    async def _close(self) -> None:
        if self.session is not None:
            await self.session.close()
        await self.platform.platform.__aexit__()
        await self.front.stop()

    def begin(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Run on the stage's loop, and return at once."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    # What the scenarios do.

    def settings(self, **sections: Any) -> dict[str, Any]:
        return {
            "platform": {"fhir_base_url": self.platform.platform.url},
            "sso": {**self.server.sso_settings(), "timeout": 5},
            "log": {"level": "debug"},
            **sections,
        }

    def gateway(self, name: str, **sections: Any) -> GatewayProcess:
        directory = self.directory / name
        directory.mkdir(exist_ok=True)
        gateway = start_gateway(self.settings(**sections), directory)
        self.gateways.append(gateway)
        return gateway

    def machine(self, name: str, credential: Mapping[str, Any], **sections: Any) -> GatewayProcess:
        """Start a gateway that has one credential and serves everybody."""
        return self.gateway(name, credentials={"default": dict(credential)}, **sections)

    def machines(
        self, name: str, credentials: Mapping[str, Mapping[str, Any]], **sections: Any
    ) -> GatewayProcess:
        """Start a gateway that has many credentials, each for a caller with its name as key."""
        callers = [
            {"name": _slug(e), "api_key": _key(e), "credential": _slug(e)} for e in credentials
        ]
        named = {_slug(each): dict(credential) for each, credential in credentials.items()}
        return self.gateway(name, credentials=named, callers=callers, **sections)

    async def start_login_gateway(self, name: str, origin: str, **login: Any) -> None:
        """Start a gateway at `origin` with a sign-in, whose settings `login` changes."""
        settings = {
            **self.server.login_settings(),
            "enabled": True,
            "redirect_uri": f"{origin}/auth/callback",
            **login,
        }
        gateway = self.gateway(
            name,
            credentials={"default": self.marked(name)},
            login=settings,
            listen={"address": origin.removeprefix("http://")},
        )
        await self.wait_until_ready(gateway)

    def marked(self, mark: str, method: str | None = None) -> dict[str, Any]:
        """Return a credential whose token requests the front tells apart from others."""
        found = self.server.credential(method or self.first_method)
        return {**found, "extra_params": {**found.get("extra_params", {}), MARK: mark}}

    @property
    def first_method(self) -> str:
        return self.server.client_auth_methods[0]

    async def read(self, gateway: GatewayProcess, caller: str) -> Answer:
        """Read the Patient of this name, as the caller of this name."""
        assert self.session is not None
        url = f"{gateway.url}/Patient/{_slug(caller)}"
        async with self.session.get(url, headers={"X-Api-Key": _key(caller)}) as response:
            return Answer(
                response.status,
                response.headers.get("X-Gateway-Error", ""),
                response.headers.get("Retry-After"),
                await response.json(content_type=None),
            )

    async def until(self, gateway: GatewayProcess, caller: str, status: int) -> Answer:
        async with asyncio.timeout(120):
            while True:
                answer = await self.read(gateway, caller)
                if answer.status == status:
                    return answer
                await asyncio.sleep(_POLL)

    async def load(
        self, gateway: GatewayProcess, caller: str, condition: Callable[[], bool]
    ) -> Counter[int]:
        """Read until the condition holds and once more; count the responses of each status."""
        found: Counter[int] = Counter()
        async with asyncio.timeout(120):
            while not condition():
                found[(await self.read(gateway, caller)).status] += 1
                await asyncio.sleep(_POLL)
        found[(await self.read(gateway, caller)).status] += 1
        return found

    async def wait_until_ready(self, gateway: GatewayProcess) -> None:
        await gateway.wait_for_status(200, "/livez")

    async def admin(self, gateway: GatewayProcess, path: str) -> str:
        assert self.session is not None
        async with self.session.get(gateway.admin_url + path) as response:
            return await response.text()

    def secrets(self) -> dict[str, str]:
        """Return the names of secrets by value. Compare with the values; do not print them."""
        tokens = dict.fromkeys(self.platform.accepted, "access_token")
        found = {**self.front.secrets, **tokens}
        return {value: name for value, name in found.items() if len(value) >= _MIN_SECRET}

    async def operator_output(self) -> dict[str, str]:
        """Return logs, audit, metrics and pages of the gateways, by source."""
        found = {}
        for gateway in self.gateways:
            name = gateway.process.stdout_file.parent.name
            found[f"audit of {name}"] = gateway.process.stdout
            found[f"log of {name}"] = gateway.process.stderr
            for path in ("/metrics", "/status", "/status.json", "/readyz"):
                found[f"{path} of {name}"] = await self.admin(gateway, path)
        return found

    async def check_and_doctor(self, name: str, **sections: Any) -> tuple[Result, Result]:
        """Return the results of `dhp-gateway check` and `doctor` for a stopped gateway."""
        settings = {
            "environment": "custom",
            "listen": {"address": f"127.0.0.1:{free_port()}"},
            "admin": {"address": f"127.0.0.1:{free_port()}"},
            **self.settings(**sections),
        }
        file = self.directory / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings))
        return await dhp("check", "--config", file), await dhp("doctor", "--config", file)


def _slug(name: str) -> str:
    return name.replace(" ", "-").lower()


def _key(caller: str) -> str:
    return f"api-key-of-{_slug(caller)}"


def secret_file(directory: Path, *secrets: str) -> str:
    """Write a file of one secret or two, all at once, and return its path."""
    file, new = directory / "secret", directory / "secret.new"
    new.write_text("\n".join(secrets) + "\n")
    new.chmod(0o600)
    os.replace(new, file)
    return str(file)
