"""Gateways that are killed while a hospital keeps sending results through them."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.doubles.command import dhp
from tests.doubles.cut_line import CutLine
from tests.outbox.replica import Replica

SYSTEM = "urn:test:result"
_PATIENCE = 100
_POLL = 0.05


@dataclass(frozen=True)
class Result:
    """The `number`th result of a patient; only a `conditional` one may be sent twice."""

    patient: int
    number: int
    conditional: bool

    @property
    def key(self) -> str:
        """Return the key that distinguishes it from all others."""
        return f"{self.patient}-{self.number}"

    @property
    def body(self) -> bytes:
        """Return the Observation."""
        resource: dict[str, Any] = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": "test"},
            "subject": {"identifier": {"system": "urn:test:patient", "value": str(self.patient)}},
            "valueString": self.key,
        }
        if self.conditional:
            resource["identifier"] = [{"system": SYSTEM, "value": self.key}]
        return json.dumps(resource).encode()

    @property
    def headers(self) -> dict[str, str]:
        """Return the header of an asynchronous create, with If-None-Exist if it is conditional."""
        fields = {"Content-Type": "application/fhir+json", "Prefer": "respond-async"}
        if self.conditional:
            fields["If-None-Exist"] = f"identifier={SYSTEM}|{self.key}"
        return fields


class Ward:
    """Sends results through any running replica, and records the responses."""

    def __init__(self, replicas: Sequence[Replica], session: aiohttp.ClientSession) -> None:
        self._replicas = replicas
        self._session = session
        self.unanswered: set[str] = set()
        # By key: what each sending came to, and the URL of the entry where one was made.
        self.answers: defaultdict[str, list[str]] = defaultdict(list)

    async def send_all(self, results: Sequence[Result]) -> None:
        """Send results one after the other, with pauses of up to half a second."""
        for result in results:
            await self._send(result)
            await asyncio.sleep(random.uniform(0, 0.5))  # noqa: S311 - no secret

    async def _send(self, result: Result) -> None:
        while True:
            url = random.choice(self._replicas).url  # noqa: S311 - no secret
            try:
                async with self._session.post(
                    f"{url}/Observation", data=result.body, headers=result.headers
                ) as answer:
                    entry = answer.headers.get("Content-Location", "")
                    self.answers[result.key].append(f"{answer.status} {entry}")
                    if answer.status in (200, 201, 202):
                        return
            except aiohttp.ClientConnectorError:
                # The connection was not made, so that nothing was sent.
                pass
            except aiohttp.ClientError as error:
                self.answers[result.key].append(repr(error))
                if not result.conditional:
                    self.unanswered.add(result.key)
                    return
            await asyncio.sleep(_POLL)


@dataclass
class Scene:
    """The platform, the connection to it, and the gateways."""

    sandbox: Sandbox
    line: CutLine
    replicas: list[Replica]
    session: aiohttp.ClientSession
    platform_log: list[str]

    async def settled(self, *, of: Replica) -> list[dict[str, Any]]:
        """Return all entries once none is waiting or being sent."""
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            if await self._at_rest(of):
                entries = await self._entries(of)
                if not [each for each in entries if each["state"] in ("waiting", "sending")]:
                    return entries
            assert asyncio.get_running_loop().time() < deadline
            await asyncio.sleep(0.5)

    async def _at_rest(self, replica: Replica) -> bool:
        """Return whether the gateway's latest status shows no waiting entry."""
        url = f"http://127.0.0.1:{replica.ports[1]}/status.json"
        async with self.session.get(url) as answer:
            entries = (await answer.json())["outbox"]["entries"]
        return entries["waiting"] + entries["sending"] == 0

    async def _entries(self, replica: Replica) -> list[dict[str, Any]]:
        listed = await dhp("outbox", "list", "--all", "--json", "--config", replica.config)
        assert listed.code == 0
        entries: list[dict[str, Any]] = json.loads(listed.out)
        return entries

    async def account(
        self, keys: Collection[str], ward: Ward, entries: Sequence[dict[str, Any]]
    ) -> str:
        """Return all that is known of these results: responses, entries, logs, the platform's."""
        known = "\n".join(answer for key in keys for answer in ward.answers[key])
        lines = [f"{key}: {ward.answers[key]}" for key in sorted(keys)]
        config = self.replicas[-1].config
        for entry in entries:
            if entry["state"] != "delivered" or entry["id"] in known:
                ask = ("outbox", "show", entry["id"], "--reveal", "--json", "--config", config)
                shown = await dhp(*ask)
                lines += [f"{entry}: {shown.out or shown.err}"]
                lines += [line for line in self._logged() if entry["id"] in line]
        lines += ["warnings:", *(line for line in self._logged() if "info" not in line)]
        lines += ["the platform:", *(line for line in self.platform_log if " 20" not in line)]
        return "\n".join(lines)

    def _logged(self) -> list[str]:
        return [line for each in self.replicas for line in each.log.splitlines()]

    async def held(self) -> list[str]:
        """Return the keys of the results that the platform has, in the order of their creation."""
        options = SandboxOptions()
        form = {
            "grant_type": "client_credentials",
            "client_id": options.client_id,
            "client_secret": options.client_secret,
        }
        async with self.session.post(self.sandbox.token_url, data=form) as answer:
            token = (await answer.json())["access_token"]
        keys: list[str] = []
        url = f"{self.sandbox.fhir_base_url}/Observation?_count=500"
        while url:
            authorization = {"Authorization": f"Bearer {token}"}
            async with self.session.get(url, headers=authorization) as answer:
                assert answer.status == 200, await answer.text()
                bundle = await answer.json(content_type=None)
            resources = (entry["resource"] for entry in bundle.get("entry", ()))
            keys += [each["valueString"] for each in resources if "valueString" in each]
            links = (each["url"] for each in bundle["link"] if each["relation"] == "next")
            url = next(links, "")
        return keys


def settings(sandbox: Sandbox, line: CutLine, outbox_url: str) -> dict[str, Any]:
    """Return the settings of a gateway that reaches the platform through the relay."""
    options = SandboxOptions()
    credential = {"client_id": options.client_id, "client_secret": options.client_secret}
    platform = sandbox.fhir_base_url.replace(sandbox.origin, f"http://127.0.0.1:{line.port}")
    return {
        "environment": "custom",
        "platform": {"fhir_base_url": platform},
        "sso": {"token_url": sandbox.token_url},
        "credentials": {"default": credential},
        "retries": {"max_attempts": 1},
        "audit": {"sink": "off"},
        "outbox": {"enabled": True, "url": outbox_url, "encryption_key": "B" * 43},
    }


async def assert_nothing_lost_or_doubled(
    results: Sequence[Result], ward: Ward, scene: Scene, *, of: Replica
) -> None:
    """Check that each result is stored once or listed as unclear, none twice, and all in order."""
    entries = await scene.settled(of=of)
    held = await scene.held()
    counts = Counter(held)
    assert [key for key, count in counts.items() if count > 1] == []
    states = Counter(entry["state"] for entry in entries)
    assert set(states) <= {"delivered", "unclear"}, states
    lost = {each.key for each in results if each.conditional} - counts.keys()
    assert not lost, await scene.account(lost, ward, entries)
    missing = {each.key for each in results} - counts.keys()
    # A result whose response was lost by a kill may be stored or not.
    refused = missing - ward.unanswered
    assert len(refused) <= states["unclear"], await scene.account(refused, ward, entries)
    for patient in {each.patient for each in results}:
        mine = [key for key in held if key.startswith(f"{patient}-")]
        assert mine == sorted(mine, key=lambda key: int(key.partition("-")[2]))
