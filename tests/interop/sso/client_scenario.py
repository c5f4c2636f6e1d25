"""The scenario of clients without users at an SSO, run once for all rows of a module.

First clients get tokens, others meet faults at the token endpoint; then the secret is changed at
the SSO; then the client is disabled; at last the SSO is off.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.command import Result
from tests.doubles.processes import GatewayProcess
from tests.extent import NIGHTLY, seconds
from tests.interop.sso.front import FAULTS, TokenRequest
from tests.interop.sso.part import ScenarioPart, run_parts
from tests.interop.sso.stage import Answer, Stage, secret_file

_AT_ONCE = 50
_RENEWALS = 2
UNKNOWN_SECRET = "a-secret-that-the-sso-does-not-know"
UNKNOWN_SCOPE = "interop/unknown.scope"

# Glewlwyd has no token endpoint for a moment when the users' scenario changes its key.
_NO_ENDPOINT = 404


@dataclass(frozen=True, slots=True)
class Steady:
    """A credential while all is well: what 50 callers at once and a steady one got."""

    at_start: list[Answer]
    statuses: Counter[int]
    requests: list[TokenRequest]


@dataclass(frozen=True, slots=True)
class Outage:
    """A credential whose token requests fail until the callers notice, and then succeed.

    `failure` is the first response other than 200, `served` the number of those before it after
    the fault began, `requests` all the token requests from that time on.
    """

    served: int
    failure: Answer
    requests: list[TokenRequest]
    again: Answer
    seconds_again: float


@dataclass(slots=True)
class ClientScenario:
    """Each of its parts may fail without the others."""

    stage: Stage
    steady: dict[str, ScenarioPart] = field(default_factory=dict)
    faults: dict[str, ScenarioPart] = field(default_factory=dict)
    rotation: ScenarioPart = field(default_factory=ScenarioPart)
    disabled: ScenarioPart = field(default_factory=ScenarioPart)
    off: ScenarioPart = field(default_factory=ScenarioPart)

    async def run_all(self, users: asyncio.Event | None) -> None:
        """Run all parts; the SSO goes off when the users' scenario has ended."""
        stage = self.stage
        self.steady = {method: ScenarioPart() for method in stage.server.client_auth_methods}
        self.faults = {fault: ScenarioPart() for fault in FAULTS}
        await asyncio.gather(
            run_parts(self.steady, self._steady_use()), run_parts(self.faults, self._faults())
        )
        await self.rotation.run(self._rotate())
        await self.disabled.run(self._disable())
        if users is not None:
            await users.wait()
        await self.off.run(self._turn_off())

    async def _steady_use(self) -> None:
        stage = self.stage
        marked = {method: stage.marked(method, method) for method in self.steady}
        gateway = stage.machines("steady", marked)
        await stage.wait_until_ready(gateway)
        await asyncio.gather(
            *(part.run(self._renew(gateway, method)) for method, part in self.steady.items())
        )

    async def _renew(self, gateway: GatewayProcess, method: str) -> None:
        stage = self.stage
        at_start = await asyncio.gather(*(stage.read(gateway, method) for _ in range(_AT_ONCE)))

        def is_renewed() -> bool:
            """Return whether there were renewals, and each token has been used."""
            accepted = [each for each in stage.front.of(method) if each.status == 200]
            used = stage.platform.tokens.get(method, [])
            return len(accepted) > _RENEWALS and len(used) >= len(accepted)

        statuses = await stage.load(gateway, method, is_renewed)
        requests = stage.front.of(method)
        self.steady[method].record("callers", Steady(at_start, statuses, requests))

    async def _faults(self) -> None:
        stage = self.stage
        marked = {fault: stage.marked(fault) for fault in self.faults}
        gateway = stage.machines("faults", marked)
        await stage.wait_until_ready(gateway)
        await asyncio.gather(
            *(part.run(self._fault(gateway, fault)) for fault, part in self.faults.items())
        )

    async def _fault(self, gateway: GatewayProcess, fault: str) -> None:
        front = self.stage.front
        await self.stage.until(gateway, fault, 200)
        before = len(front.of(fault))
        front.faults[fault] = fault
        served, failure = await self._until_failing(gateway, fault)
        del front.faults[fault]
        begin = time.monotonic()
        again = await self.stage.until(gateway, fault, 200)
        requests = front.of(fault)[before:]
        took = time.monotonic() - begin
        self.faults[fault].record("outage", Outage(served, failure, requests, again, took))

    async def _until_failing(self, gateway: GatewayProcess, caller: str) -> tuple[int, Answer]:
        served = 0
        async with asyncio.timeout(120):
            while True:
                answer = await self.stage.read(gateway, caller)
                if answer.status != 200 and self.stage.front.of(caller)[-1].status != _NO_ENDPOINT:
                    return served, answer
                served += answer.status == 200
                await asyncio.sleep(0.1)

    async def _rotate(self) -> None:
        """Run two gateways: the file of one has the former secret, that of the other has both."""
        stage, part = self.stage, self.rotation
        secret = stage.server.credential(stage.first_method)["client_secret"]
        one = self._with_file("rotated", secret)
        two = self._with_file("exchanged", UNKNOWN_SECRET, secret)
        for name, gateway in (("rotated", one), ("exchanged", two)):
            await stage.wait_until_ready(gateway)
            await stage.until(gateway, name, 200)
        part.record("requests of two secrets", stage.front.of("exchanged"))
        ended = asyncio.Event()
        load = asyncio.ensure_future(stage.load(two, "exchanged", ended.is_set))
        try:
            new = await asyncio.to_thread(stage.server.change_secret)
            secret_file(stage.directory / "exchanged", new, secret)
            before = len(stage.front.of("rotated"))
            _, failure = await self._until_failing(one, "rotated")
            requests = stage.front.of("rotated")[before:]
            refused = [each for each in requests if each.status != _NO_ENDPOINT]
            part.record("refused", (failure, refused))
            part.record("doctor", await self._examine("rotated"))
            secret_file(stage.directory / "rotated", new)
            begin = time.monotonic()
            part.record("corrected", await stage.until(one, "rotated", 200))
            part.record("seconds", time.monotonic() - begin)
        finally:
            ended.set()
            statuses = await load
        part.record("exchanged", (statuses, stage.front.of("exchanged")))

    def _with_file(self, name: str, *secrets: str) -> GatewayProcess:
        (self.stage.directory / name).mkdir()
        return self.stage.machine(name, self._credential(name, *secrets))

    def _credential(self, name: str, *secrets: str) -> dict[str, Any]:
        stage = self.stage
        found = stage.marked(name)
        known = found.pop("client_secret")
        file = secret_file(stage.directory / name, *(secrets or (known,)))
        return {**found, "client_secret_file": file}

    async def _examine(self, name: str, **changes: Any) -> tuple[Result, Result]:
        """Let `check` and `doctor` look at a gateway's credential, with the file as it is."""
        stage = self.stage
        found = stage.marked(name)
        del found["client_secret"]
        file = str(stage.directory / name / "secret")
        credential = {**found, "client_secret_file": file, **changes}
        return await stage.check_and_doctor(
            f"doctor-{name}-{len(changes)}", credentials={"default": credential}
        )

    async def _disable(self) -> None:
        stage, part = self.stage, self.disabled
        (stage.directory / "disabled").mkdir()
        credential = self._credential("disabled")
        well, scope = await asyncio.gather(
            self._examine("disabled"), self._examine("disabled", scope=UNKNOWN_SCOPE)
        )
        part.record("doctor when well", well)
        part.record("doctor of the scope", scope)
        await asyncio.to_thread(lambda: stage.server.enable_client(enabled=False))
        try:
            before = len(stage.front.of("disabled"))
            gateway = stage.machine("disabled", credential)
            await stage.wait_until_ready(gateway)
            answers = [await stage.read(gateway, "disabled") for _ in range(10)]
            part.record("refused", (answers[-1], stage.front.of("disabled")[before:]))
            part.record("doctor when disabled", await self._examine("disabled"))
        finally:
            await asyncio.to_thread(lambda: stage.server.enable_client(enabled=True))
        if not NIGHTLY:
            # By itself it would ask again a minute after the refusal.
            gateway.process.popen.send_signal(signal.SIGHUP)
        part.record("again", await stage.until(gateway, "disabled", 200))

    async def _turn_off(self) -> None:
        stage, part = self.stage, self.off
        (stage.directory / "off").mkdir()
        gateway = stage.machine("off", self._credential("off"))
        await stage.wait_until_ready(gateway)
        await stage.until(gateway, "off", 200)
        before = len(stage.front.of("off"))
        begin = time.monotonic()
        await stage.front.stop()
        await asyncio.to_thread(stage.server.stop)
        try:
            served, failure = await self._until_failing(gateway, "off")
            part.record("doctor", await self._examine("off"))
            rest = seconds(0, 60) - (time.monotonic() - begin)
            await asyncio.sleep(max(0.0, rest))
        finally:
            await stage.front.start()
            await asyncio.to_thread(stage.server.start)
        begin = time.monotonic()
        again = await stage.until(gateway, "off", 200)
        requests = stage.front.of("off")[before:]
        part.record("outage", Outage(served, failure, requests, again, time.monotonic() - begin))
