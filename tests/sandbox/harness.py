"""A running sandbox, and a client that has a token for it."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.doubles.clock import FakeClock

FHIR_JSON = "application/fhir+json"
PATIENT = "5d0c6f0a-1f1e-4c55-9a1b-000000000011"
OTHER_PATIENT = "5d0c6f0a-1f1e-4c55-9a1b-000000000012"
NOBODY = "00000000-0000-4000-8000-000000000000"
CREDENTIALS = {
    "grant_type": "client_credentials",
    "client_id": "hospital-demo",
    "client_secret": "sandbox-secret",
}


@dataclass
class Answer:
    """A complete response."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes

    @property
    def json(self) -> Any:
        """Return the body as parsed JSON, numbers as floats."""
        return json.loads(self.body)

    @property
    def issue(self) -> Any:
        assert self.json["resourceType"] == "OperationOutcome"
        return self.json["issue"][0]


@dataclass
class SandboxClient:
    """A sandbox, its log lines, its delays in seconds, and a client."""

    sandbox: Sandbox
    session: aiohttp.ClientSession
    clock: FakeClock
    lines: list[str] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    token: str = ""

    async def ask(
        self,
        method: str,
        url: str,
        *,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        form: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send any request; a body that is not bytes is sent as FHIR JSON."""
        fields = dict(headers or {})
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        if body is not None:
            fields.setdefault("Content-Type", FHIR_JSON)
        async with self.session.request(
            method,
            URL(url, encoded=True),
            headers=fields,
            data=form if form is not None else body,
            allow_redirects=False,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    async def fhir(self, method: str, path: str, **how: Any) -> Answer:
        """Send a request to the platform with a token; `path` is absolute or below the base."""
        if not self.token:
            self.token = (await self.ask_token(CREDENTIALS)).json["access_token"]
        headers = {"Authorization": f"Bearer {self.token}", **(how.pop("headers", None) or {})}
        url = path if path.startswith("http") else self.sandbox.fhir_base_url + path
        return await self.ask(method, url, headers=headers, **how)

    async def ask_token(
        self, form: Mapping[str, str], headers: Mapping[str, str] | None = None
    ) -> Answer:
        return await self.ask("POST", self.sandbox.token_url, form=form, headers=headers)

    async def create(self, **elements: Any) -> str:
        answer = await self.fhir("POST", "/Patient", body={"resourceType": "Patient", **elements})
        assert answer.status == 201, answer.body
        identifier: str = answer.json["id"]
        return identifier

    async def found(self, path: str) -> list[str]:
        answer = await self.fhir("GET", path)
        assert answer.status == 200, answer.body
        return [entry["resource"]["id"] for entry in answer.json.get("entry", [])]


class FixedRandom(random.Random):
    """A random source that returns the given numbers, over and over."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self._numbers = list(numbers)

    def random(self) -> float:
        self._numbers.append(self._numbers.pop(0))
        return self._numbers[-1]


def recording_sleep(into: list[float]) -> Callable[[float], Awaitable[None]]:
    """Return a sleep that only records its seconds."""

    async def sleep(seconds: float) -> None:
        into.append(seconds)

    return sleep


@asynccontextmanager
async def running_sandbox(
    options: SandboxOptions | None = None, rng: random.Random | None = None
) -> AsyncIterator[SandboxClient]:
    clock, lines, slept = FakeClock(), list[str](), list[float]()
    sandbox = Sandbox(
        options or SandboxOptions(port=0),
        clock=clock.wall,
        rng=rng,
        log=lines.append,
        sleep=recording_sleep(slept),
    )
    await sandbox.start()
    try:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
            yield SandboxClient(sandbox, session, clock, lines, slept)
    finally:
        await sandbox.stop()
