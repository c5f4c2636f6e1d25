"""Random histories of gateways with an outbox, and a checker of their results.

    python -m tests.outbox.histories --minutes 30 --seed 1
    python -m tests.outbox.histories --minutes 30 --postgresql

With PostgreSQL, a server of its own, two gateways share the outbox; each caller keeps to one of
them, since they do not know each other's last writes.

Callers send updates, creates and deletions of several patients throughout. Meanwhile the connection
to the platform is cut, the platform responds 503 or breaks off, a gateway's disk is full, its clock
is set, and it is killed or stopped and started again; a kill leaves a torn write at the end of
SQLite's log, as a power cut does. At the end one of two gateways is killed and stays away. After
the faults the checker asks: did every accepted write reach the platform, once and in the order of
its ordering key; did the platform get anything that no caller sent; does any entry still wait? Each
history has a seed, which is printed with its figures and reproduces its events. Full disks need
root.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import mmap
import os
import random
import struct
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from gateway.app import shared_stores
from gateway.config.operations_settings import OutboxSettings
from gateway.outbox.entry import EntryState
from gateway.outbox.open_outbox import open_outbox_store
from gateway.outbox.store.outbox_store import OutboxStore
from tests.doubles.platform import Platform
from tests.doubles.relay import Relay
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.outbox.postgres_server import PostgresServer, postgres_server
from tests.outbox.remembering import REQUEST_ID, RememberingPlatform
from tests.outbox.replica import Replica

CALLERS = ("lis", "his")
PATIENTS = 3
SYSTEM = "urn:test:history"
_KEY = "B" * 43
_ALL = 1_000_000
_PATIENCE = 300.0
_VOLUME = "20m"
_HOUR = 3600.0
_OFFSET = struct.Struct("=d")
# Program of a gateway whose clock is set through a file that it maps.
_CLOCKED = """
import mmap, struct, sys, time
offset = mmap.mmap(os.open(sys.argv.pop(1), os.O_RDONLY), 8, prot=mmap.PROT_READ)
real = time.time
time.time = lambda: real() + struct.unpack("=d", offset[:8])[0]
from gateway.__main__ import main
main()
"""


@dataclass(frozen=True, slots=True)
class Write:
    """The `number`th write of all; `names` are its ordering keys."""

    number: int
    caller: str
    patient: int
    kind: str

    @property
    def key(self) -> str:
        """Return the request id, by which the platform distinguishes it from all others."""
        return f"h-{self.number}"

    @property
    def names(self) -> frozenset[str]:
        """Return the ordering keys; a deletion has only that of its resource."""
        own = {self.path} if self.kind in ("PUT", "DELETE") else set()
        return frozenset(own if self.kind == "DELETE" else own | {f"Patient/{self.patient}"})

    @property
    def method(self) -> str:
        """Return the method.

        A `SOUGHT` write is a create that can be verified, a `CONDITIONAL` one may be repeated.
        """
        return "POST" if self.kind in ("SOUGHT", "CONDITIONAL") else self.kind

    @property
    def path(self) -> str:
        own = f"/{self.caller}-{self.patient}-{self.number % 2}"
        return "/Observation" + (own if self.method != "POST" else "")

    @property
    def body(self) -> bytes | None:
        if self.kind == "DELETE":
            return None
        resource: dict[str, Any] = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"text": self.key},
            "subject": {"reference": f"Patient/{self.patient}"},
        }
        if self.kind == "PUT":
            resource["id"] = self.path.rpartition("/")[2]
        if self.kind in ("SOUGHT", "CONDITIONAL"):
            resource["identifier"] = [{"system": SYSTEM, "value": self.key}]
        return json.dumps(resource).encode()


@dataclass
class Sent:
    """The response to a write: the status, 0 without a response, and the id of its entry."""

    write: Write
    status: int = 0
    entry: str = ""


@dataclass
class Callers:
    """The callers: each patient's writes one after the other."""

    session: aiohttp.ClientSession
    urls: Mapping[str, str]
    kinds: Sequence[str]
    chance: random.Random
    sent: list[Sent] = field(default_factory=list)
    over: bool = False

    async def all_patients(self) -> None:
        """Send writes until `over` is set."""
        who = itertools.product(CALLERS, range(PATIENTS))
        await asyncio.gather(*(self._patient(*each) for each in who))

    async def _patient(self, caller: str, patient: int) -> None:
        while not self.over:
            write = Write(len(self.sent), caller, patient, self.chance.choice(self.kinds))
            sent = Sent(write)
            self.sent.append(sent)
            with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                await self._send(sent)
            away = 0.0 if sent.status else 0.5
            await asyncio.sleep(away + self.chance.uniform(0.05, 0.6))

    async def _send(self, sent: Sent) -> None:
        write = sent.write
        fields = {REQUEST_ID: write.key, "X-Api-Key": write.caller * 8}
        if write.body is not None:
            fields["Content-Type"] = "application/fhir+json"
        if write.kind == "CONDITIONAL":
            fields["If-None-Exist"] = f"identifier={SYSTEM}|{write.key}"
        async with self.session.request(
            write.method, self.urls[write.caller] + write.path, data=write.body, headers=fields
        ) as answer:
            if answer.status == 202:
                sent.entry = answer.headers["Content-Location"].rpartition("/")[2]
            sent.status = answer.status


class Gateway:
    """A replica with a clock and a disk that a test controls."""

    def __init__(
        self, name: str, directory: Path, settings: dict[str, Any], full_disks: bool
    ) -> None:
        self._volume = directory / "volume"
        self._volume.mkdir(exist_ok=True)
        self._full_disks = full_disks
        if full_disks:
            options = ["-t", "tmpfs", "-o", f"size={_VOLUME}"]
            subprocess.run(["mount", *options, "tmpfs", str(self._volume)], check=True)
        clock = directory / f"{name}.clock"
        clock.write_bytes(_OFFSET.pack(0.0))
        with clock.open("r+b") as file:
            self._clock = mmap.mmap(file.fileno(), 0)
        program = [sys.executable, "-c", "import os\n" + _CLOCKED, clock]
        self.replica = Replica(name, directory, settings, program)

    def set_clock(self, by: float) -> None:
        """Set the difference of the gateway's clock from the true time, in seconds."""
        self._clock[:] = _OFFSET.pack(by)

    def fill(self) -> None:
        with (self._volume / "alien").open("ab", buffering=0) as file:
            for size in (65536, 4096, 512):
                with contextlib.suppress(OSError):
                    while file.write(b"x" * size) == size:
                        pass

    def tear(self, rest: bytes) -> None:
        """Append what a power cut leaves of a write that was not finished, if there is a log."""
        for log in self._volume.glob("*-wal"):
            # A full disk takes a part of it, or nothing.
            with contextlib.suppress(OSError), log.open("ab") as file:
                file.write(rest)

    def free(self) -> None:
        (self._volume / "alien").unlink(missing_ok=True)

    def close(self) -> None:
        self.replica.kill()
        if self._full_disks:
            subprocess.run(["umount", "--lazy", str(self._volume)], check=False)


@dataclass
class History:
    """One run: the callers, the path to the platform, and the events meanwhile.

    Each event that strikes a gateway strikes one of them.
    """

    gateways: Sequence[Gateway]
    outbox_url: str
    line: Relay
    platform: RememberingPlatform
    callers: Callers
    chance: random.Random
    events: Counter[str] = field(default_factory=Counter)

    async def run_events(self, seconds: float, events: Sequence[str]) -> None:
        until = time.monotonic() + seconds
        sending = asyncio.create_task(self.callers.all_patients())
        while time.monotonic() < until:
            event = self.chance.choice(events)
            self.events[event] += 1
            await getattr(self, f"_{event}")()
            await asyncio.sleep(self.chance.uniform(0.1, 1.5))
        for gateway in self.gateways[1:]:
            await self._lose(gateway)
        self.callers.over = True
        await sending
        self.platform.faults_ahead.clear()
        for gateway in self.gateways:
            gateway.free()

    async def _lose(self, gateway: Gateway) -> None:
        """Kill a gateway for good, in the midst of slow deliveries."""
        self.line.cut()
        await asyncio.sleep(1.0)
        self.platform.faults_ahead = ["slow"] * 100
        done = len(self.platform.effects)
        await self.line.restore()
        # The checker reports writes that do not come.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while len(self.platform.effects) < done + 4:  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.01)
        gateway.replica.kill()

    def _gateway(self) -> Gateway:
        return self.chance.choice(self.gateways)

    async def _cut(self) -> None:
        self.line.cut()
        await asyncio.sleep(self.chance.choice([0.05, 0.5, 3.0]))
        await self.line.restore()

    async def _weather(self) -> None:
        kinds = ["busy", "lost", "answer-lost", "slow"]
        self.platform.faults_ahead += self.chance.choices(kinds, k=self.chance.randint(1, 12))

    async def _kill(self) -> None:
        gateway = self._gateway()
        gateway.replica.kill()
        gateway.tear(self.chance.randbytes(1500))
        await gateway.replica.start()

    async def _kill_twice(self) -> None:
        await self._kill()
        await asyncio.sleep(self.chance.uniform(0.0, 0.5))
        await self._kill()

    async def _restart(self) -> None:
        replica = self._gateway().replica
        await replica.end()
        await replica.start()

    async def _full_disk(self) -> None:
        gateway = self._gateway()
        gateway.fill()
        if self.chance.random() < 0.3:
            await self._kill()
        await asyncio.sleep(self.chance.uniform(0.5, 4.0))
        gateway.free()

    async def _clock(self) -> None:
        self._gateway().set_clock(self.chance.choice([0.0, _HOUR, -_HOUR, 5 * _HOUR]))

    async def settle(self) -> dict[str, EntryState]:
        """Wait until no entry waits, dropping unclear ones.

        Return the final state of each entry by id.
        """
        unclear: dict[str, EntryState] = {}
        place = {"enabled": True, "url": self.outbox_url, "encryption_key": _KEY}
        outbox = OutboxSettings.model_validate(place)
        async with open_outbox_store(outbox, shared_stores.outbox_key(outbox)) as store:
            # The checker reports entries that wait longer.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE):
                    await self._decided(store, unclear)
            ended = {each.id: each.state for each in await store.entries(limit=_ALL)}
        return ended | unclear

    async def _decided(self, store: OutboxStore, unclear: dict[str, EntryState]) -> None:
        while await store.entries(states=[EntryState.WAITING, EntryState.SENDING]):
            for each in await store.entries(states=[EntryState.UNCLEAR]):
                unclear[each.id] = EntryState.UNCLEAR
                await store.apply_action(each.id, EntryState.DROPPED)
            await asyncio.sleep(0.5)


def faults(
    sent: Sequence[Sent], states: Mapping[str, EntryState], effects: Sequence[tuple[str, bytes]]
) -> list[str]:
    """Return the faults found.

    `states` are the final states of the entries, `effects` request id and content of each write
    that took effect.
    """
    known = {each.write.key: each for each in sent}
    counts = Counter(key for key, _ in effects)
    found = [f"{key} was not asked for" for key in counts.keys() - known.keys()]
    for key, body in effects:
        if key in known and body != (known[key].write.body or b""):
            found.append(f"{key} was changed")
    for key, each in known.items():
        found += _faults_of(each, counts[key], states)
    return found + _disorder(sent, [key for key, _ in effects])


def _faults_of(sent: Sent, count: int, states: Mapping[str, EntryState]) -> list[str]:
    write, state = sent.write, states.get(sent.entry)
    description = f"{write.key} ({write.kind}, told {sent.status}, {state or 'not kept'})"
    found = []
    if count > 1 and write.method == "POST":
        found.append(f"{description} was done {count} times")
    if sent.status == 503 and count:
        found.append(f"{description} was done")
    if not count and (200 <= sent.status < 300 and state != "unclear"):
        found.append(f"{description} is lost")
    if sent.entry and state != "delivered" and (state, write.kind) != ("unclear", "POST"):
        found.append(f"{description} was not delivered")
    return found


def _disorder(sent: Sequence[Sent], effects: Sequence[str]) -> list[str]:
    """Return faults of order: a write with a response precedes each later one with a common key."""
    first = {key: place for place, key in reversed(list(enumerate(effects)))}
    last = {key: place for place, key in enumerate(effects)}
    found = []
    for (caller, patient), mine in itertools.groupby(
        sorted(sent, key=_patient_of), key=_patient_of
    ):
        # A write without a response may have been sent at any later time.
        answered = [each.write for each in mine if each.status]
        for one, other in itertools.combinations(answered, 2):
            both = one.key in last and other.key in first
            if both and one.names & other.names and last[one.key] > first[other.key]:
                found.append(f"{caller}, {patient}: {one.key} came after {other.key}")
    return found


def _patient_of(sent: Sent) -> tuple[str, int]:
    return sent.write.caller, sent.write.patient


@contextlib.asynccontextmanager
async def staged(
    directory: Path, seed: int, kinds: Sequence[str], *, url: str | None, full_disks: bool
) -> AsyncIterator[History]:
    """Yield a platform, a connection to it, gateways and callers, before the first event."""
    names = ("gateway",) if url is None else ("first", "second")
    url = url or f"sqlite:///{directory}/volume/outbox.db"
    chance = random.Random(seed)  # noqa: S311 - no secret
    remembering = RememberingPlatform()
    async with Platform() as platform, Sso() as sso, Relay(platform.port) as relay:
        platform.respond(remembering.respond)
        settings = _settings(f"http://127.0.0.1:{relay.port}{platform.base_path}", sso, url)
        gateways = [Gateway(name, directory, settings, full_disks) for name in names]
        timeout = aiohttp.ClientTimeout(total=_PATIENCE)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                for gateway in gateways:
                    await gateway.replica.start()
                own = random.Random(seed)  # noqa: S311 - no secret
                entrances = itertools.cycle(gateway.replica.url for gateway in gateways)
                callers = Callers(session, dict(zip(CALLERS, entrances, strict=False)), kinds, own)
                yield History(gateways, url, relay, remembering, callers, chance)
            finally:
                for gateway in gateways:
                    gateway.close()


def _settings(base_url: str, sso: Sso, url: str) -> dict[str, Any]:
    month = 30 * 24 * _HOUR
    outbox = {
        "enabled": True,
        "url": url,
        "encryption_key": _KEY,
        "retention": month,
        "max_age": month,
    }
    return gateway_settings(
        base_url,
        sso.token_url,
        callers=[{"name": name, "api_key": name * 8, "outbox": "always"} for name in CALLERS],
        retries={"max_attempts": 1},
        circuit_breaker={"open_for": 2},
        audit={"sink": "off"},
        outbox=outbox,
    )


EVENTS = ("cut", "weather", "kill", "kill_twice", "restart", "clock")
KINDS = ("PUT", "PUT", "POST", "SOUGHT", "CONDITIONAL", "DELETE")


async def run(
    directory: Path,
    seed: int,
    seconds: float,
    *,
    events: Sequence[str] = EVENTS,
    kinds: Sequence[str] = KINDS,
    url: str | None = None,
) -> tuple[Counter[str], list[str]]:
    """Run one history, on SQLite without a URL. Return its figures and its faults."""
    full_disks = "full_disk" in events
    async with staged(directory, seed, kinds, url=url, full_disks=full_disks) as history:
        await history.run_events(seconds, events)
        states = await history.settle()
        sent = history.callers.sent
        figures = Counter({f"answered {each.status}": 0 for each in sent})
        figures.update(f"answered {each.status}" for each in sent)
        figures.update(f"finally {state}" for state in states.values())
        figures.update({"writes": len(sent), "effects": len(history.platform.effects)})
        return figures + history.events, faults(sent, states, history.platform.effects)


async def _many(
    minutes: float, seed: int, seconds: float, server: PostgresServer | None = None
) -> bool:
    events = (*EVENTS, "full_disk") if os.geteuid() == 0 and server is None else EVENTS
    total: Counter[str] = Counter()
    until, right, count = time.monotonic() + minutes * 60, True, 0
    while time.monotonic() < until:
        with tempfile.TemporaryDirectory() as directory:
            url = await server.fresh_database("history") if server else None
            where = Path(directory)
            figures, wrong = await run(where, seed + count, seconds, events=events, url=url)
        total += figures
        description = f"seed {seed + count}: {figures['writes']} writes, {wrong or 'fine'}"
        print(description, flush=True)  # noqa: T201 - the output of the program
        right, count = right and not wrong, count + 1
    summary = ", ".join(f"{n} {what}" for what, n in sorted(total.items()))
    print(f"{count} histories: {summary}")  # noqa: T201 - the output of the program
    return right


def main() -> None:
    """Run histories until the time is over. Ends with 1 when one has a fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=40.0, help="of each history")
    parser.add_argument("--postgresql", action="store_true", help="two gateways that share it")
    arguments = parser.parse_args()
    many = functools.partial(_many, arguments.minutes, arguments.seed, arguments.seconds)
    if arguments.postgresql:
        right = all(asyncio.run(many(server)) for server in postgres_server())
    else:
        right = asyncio.run(many())
    sys.exit(not right)


if __name__ == "__main__":
    main()
