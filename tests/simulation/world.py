"""A run of a plan: the simulated world from its start to its end, and what happened in it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import hashlib
import importlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.simulation.substitutes import SURROUNDINGS

# isort: split
# What is above replaces the clocks, which `gateway` takes as it is imported.
from gateway.audit.chain_verification import verify_files
from gateway.audit.hash_chain import parse_record
from tests.simulation import gateway_process, simulated_disk
from tests.simulation.callers import Browser, Lane
from tests.simulation.gateway_process import TELLER, GatewayProcess, ProcessKilledError
from tests.simulation.history import History
from tests.simulation.hosts import Platform, Sso, Weather
from tests.simulation.plan import Fault, Plan
from tests.simulation.simulated_disk import HOOKS, PowerLoss, SimulatedDisk
from tests.simulation.simulated_loop import START, Deadlock, SimulatedLoop, host_of
from tests.simulation.simulated_threads import abandon_all

# Seconds within which everything is done after the last fault has ended: the longest delays before
# another attempt, an entry's lease, an open circuit, and the time for the work itself.
PROMISED = 300.0
_POLL = 2.0
_DIALECT = "sqlalchemy.dialects.sqlite.pysqlite"
_LOSSES: tuple[PowerLoss, ...] = ("all", "torn", "none")
_RUNS_OF_GARBAGE = 8
_uncollected = 0
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory that nobody can guess is made in it
_PREFIX = "simulation-"
_DESCRIPTORS = Path("/proc/self/fd")


@dataclass
class Run:
    """What a run came to."""

    plan: Plan
    history: History
    steps: int
    seconds: float
    trace: str


class World:
    """The hosts and the one gateway of a run."""

    def __init__(self, plan: Plan, directory: Path, *, keeps_trace: bool = False) -> None:
        self._plan = plan
        self.loop = SimulatedLoop(plan.seed, plan.order, keeps_trace=keeps_trace)
        self._network = self.loop.network
        self._rng = random.Random(f"{plan.seed}:world")
        self.history = History()
        self._weather = Weather(self.loop, random.Random(f"{plan.seed}:weather"))
        self._sso = Sso(self.loop, plan, self.history, self._weather)
        self._platform = Platform(self.loop, plan, self.history, self._weather)
        latency = (0.0, 0.05) if plan.is_coarse else (0.0005, 0.05)
        self._network.set_latency(latency, is_coarse=plan.is_coarse)
        self._network.max_fragment = plan.max_fragment
        self.loop.thread_delay = self._delay
        self._disk = SimulatedDisk(
            directory,
            self._delay,
            random.Random(f"{plan.seed}:disk"),
            keeps_flushes=plan.loses_power,
        )
        self._processes = 0
        self._cuts: dict[str, float] = {}
        self._process: GatewayProcess | None = None
        self._changes = asyncio.Lock()

    def _delay(self) -> float:
        """Return the seconds that a step of a thread takes."""
        if self._plan.is_coarse:
            return self._rng.choice((0.0, 0.0, 0.0, 0.05))
        return self._rng.uniform(0.0, 0.004)

    def tell(self, text: str) -> None:
        self.history.tell(self.loop.now(), text)

    async def run(self) -> None:
        """Run the plan to its end."""
        for host in (self._sso, self._platform):
            await self._network.spawn(host.name, host.listen())
        browsers = {user: Browser(user, self._sso) for user in sorted(set(self._plan.lanes))}
        lanes = [
            Lane(
                number,
                self._plan,
                self.loop,
                self.history,
                self._host,
                browsers[user] if self._plan.has_login else None,
            )
            for number, user in enumerate(self._plan.lanes)
        ]
        for lane in lanes:
            self._network.host(lane.name)
        await self._start()
        faults = [asyncio.ensure_future(self._fail(fault)) for fault in self._plan.faults]
        observing = asyncio.ensure_future(self._observe())
        calls = [self._network.spawn(lane.name, lane.run()) for lane in lanes]
        await asyncio.gather(*faults, *calls)
        self.history.faults_end = self.loop.now()
        self.tell("all faults are over, and all calls are made")
        await self._become_idle()
        if self._process is not None and self._process.gateway.outbox is not None:
            entries = self._process.gateway.outbox.report()["entries"]
            self.history.unclear = entries.get("unclear", 0)
        observing.cancel()
        for lane in lanes:
            await self._network.spawn(lane.name, lane.learn_outcomes())
            lane.close()
        await self._stop()
        if self._process is not None:
            self.history.leaks += self._process.leaks()
        self._read_audit()

    def _host(self) -> str:
        return f"gateway-{self._processes}"

    async def _start(self) -> None:
        self._processes += 1
        process = GatewayProcess(
            self._processes,
            self.loop,
            self._disk,
            outbox=self._plan.has_outbox,
            login=self._plan.has_login,
        )
        self._process = process
        self.tell(f"{process.host} starts")
        for fault in self._cuts:
            self._network.cut(process.host, fault)
        try:
            await process.start()
        except ProcessKilledError:
            self.tell(f"{process.host} was killed while it started")

    async def _stop(self) -> None:
        process = self._process
        if process is not None and process.is_ready:
            self.tell(f"{process.host} is told to stop")
            await process.stop()
            self.history.ends[process.host] = self.loop.now()
            self.tell(f"{process.host} has stopped")

    async def _fail(self, fault: Fault) -> None:
        await asyncio.sleep(max(0.0, START + fault.at - self.loop.now()))
        self.tell(f"fault: {fault}")
        began = self.loop.now()
        await self._let_fail(fault)
        if fault.kind != "reload":
            self.history.disturbed.append((began, self.loop.now()))

    async def _let_fail(self, fault: Fault) -> None:
        match fault.kind:
            case "no link to the platform":
                await self._cut("platform", fault.seconds)
            case "no link to the sso":
                await self._cut("sso", fault.seconds)
            case "tokens are revoked":
                self._sso.revoke_all()
            case "wall clock jumps":
                SURROUNDINGS.wall_offset += fault.value
            case "reload" | "stop" | "kill" | "power failure":
                await self._change(fault)
            case _:
                self._weather.begin(fault.kind, fault.seconds, fault.value)
                await asyncio.sleep(fault.seconds)

    async def _cut(self, host: str, seconds: float) -> None:
        self._cuts[host] = max(self._cuts.get(host, 0.0), self.loop.now() + seconds)
        self._network.cut(self._host(), host)
        await asyncio.sleep(seconds)
        if self.loop.now() >= self._cuts.get(host, 0.0):
            self._cuts.pop(host, None)
            self._network.mend(host)

    async def _change(self, fault: Fault) -> None:
        if fault.kind in ("kill", "power failure"):
            await self._die(fault)
            return
        async with self._changes:
            process = self._process
            if process is None or not process.is_ready:
                return
            if fault.kind == "reload":
                self.history.reloads.append(self.loop.now())
                await self._while_alive(process.reload())
                return
            await self._while_alive(self._stop())
            await self._again(fault.seconds, process)

    async def _while_alive(self, work: Any) -> None:
        """Wait for the work of a process, which may be killed meanwhile."""
        try:
            await work
        except ProcessKilledError:
            self.tell("the process was killed meanwhile")

    async def _die(self, fault: Fault) -> None:
        process = self._process
        if process is None or not self._network.is_alive(process.host):
            return
        has_lost_power = fault.kind == "power failure"
        loss = _LOSSES[int(fault.value)] if has_lost_power else None
        process.kill(reset=fault.value != 1, silent=has_lost_power)
        self.history.ends[process.host] = self.loop.now()
        self._disk.restart(loss)
        self.tell(f"{process.host} is dead{f', what was not flushed: {loss}' if loss else ''}")
        async with self._changes:
            await self._again(fault.seconds, process)

    async def _again(self, seconds: float, before: GatewayProcess) -> None:
        await asyncio.sleep(seconds)
        if self._process is before:
            self._network.reset_peers(before.host)
            await self._start()

    async def _observe(self) -> None:
        """Note from time to time what `/readyz` says."""
        while True:
            await asyncio.sleep(_POLL)
            process = self._process
            if process is not None and process.is_ready:
                self.history.readiness.append((self.loop.now(), *process.readiness()))

    async def _become_idle(self) -> None:
        began = self.loop.now()
        while self.loop.now() < began + PROMISED:
            await asyncio.sleep(_POLL)
            if self._process is not None and self._process.is_ready and self._is_idle():
                self.history.idle_after = self.loop.now() - began
                self.tell("everything is idle")
                return
        self.tell("something is not idle")

    def _is_idle(self) -> bool:
        process = self._process
        assert process is not None
        gateway = process.gateway
        if gateway._cores.inflight or gateway._cores._retiring or not process.readiness()[0]:
            return False
        if gateway.outbox is None:
            return True
        # What waits behind an unclear entry waits for a person.
        sending = gateway.outbox.report()["entries"].get("sending")
        return not sending and not gateway.outbox._depth.is_deliverable

    def _read_audit(self) -> None:
        """Read the audit of all processes, and check its chain."""
        files = sorted(self._disk.directory.glob("audit.jsonl*"), key=_by_rotation)
        last = None
        for line in _records(files, self.history.audit_problems):
            record = parse_record(line)
            assert record is not None
            if not record.has_valid_hash or (last is not None and record.prev != last):
                self.history.audit_problems.append(f"record {record.position.seq} is unbound")
            last = record.position.hash
            self.history.audit.append(json.loads(line))
        fault = verify_files(files, pause=lambda seconds: None).fault
        if fault is not None:
            self.history.audit_problems.append(f"line {fault.line}: {fault.detail}")

    def on_error(self, loop: object, context: dict[str, Any]) -> None:
        """Note an error that no task of a living process has handled."""
        error = context.get("exception")
        task = context.get("task") or context.get("future")
        host = host_of(task.get_context()) if isinstance(task, asyncio.Task) else ""
        is_dead = host.startswith("gateway") and not self._network.is_alive(host)
        if error is not None and not is_dead:
            self.history.errors.append(f"{type(error).__name__} {context.get('message')} {host}")


def _by_rotation(path: Path) -> tuple[bool, str]:
    """Return the order of a file: by its last record, for the wall clock may have jumped."""
    return path.name == "audit.jsonl", path.name.rpartition("-")[2]


def _records(files: list[Path], problems: list[str]) -> Iterator[bytes]:
    """Yield the lines of records, without what was torn and is reported by a record behind it."""
    for path in files:
        torn: list[bytes] = []
        for line in path.read_bytes().split(b"\n")[:-1]:
            is_record = b"\0" not in line and parse_record(line) is not None
            if torn and is_record and json.loads(line).get("sha256") == _hash_of(torn):
                torn.clear()
            if torn or not is_record:
                torn.append(line)
            else:
                yield line
        if torn:
            problems.append(f"{len(torn)} lines are no records")


def _hash_of(lines: list[bytes]) -> str:
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def run_plan(plan: Plan, *, keeps_trace: bool = False) -> Run:
    """Run a plan. What happens follows from the plan alone."""
    parent = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
    random.seed(f"{plan.seed}:global")
    gc.disable()
    try:
        return _run_in(plan, directory, keeps_trace=keeps_trace)
    finally:
        SURROUNDINGS.clock = SURROUNDINGS.entropy = HOOKS.disk = None
        SURROUNDINGS.wall_offset = 0.0
        shutil.rmtree(directory)
        _collect()
        gc.enable()


def _collect() -> None:
    """Free what some runs have left: within one nothing is, so that none differs by it."""
    global _uncollected
    _uncollected += 1
    if _uncollected == _RUNS_OF_GARBAGE:
        _uncollected = 0
        gc.collect()
        _close_files_of_the_dead()


def _close_files_of_the_dead() -> None:
    """Close what killed gateways had open in directories that are gone, as a system would."""
    for each in _DESCRIPTORS.iterdir() if _DESCRIPTORS.is_dir() else ():
        with contextlib.suppress(OSError):
            target = os.readlink(each)
            if f"/{_PREFIX}" in target and target.endswith(" (deleted)"):
                os.close(int(each.name))


def _run_in(plan: Plan, directory: Path, *, keeps_trace: bool) -> Run:
    world = World(plan, directory, keeps_trace=keeps_trace)
    loop = world.loop
    SURROUNDINGS.clock = loop.now
    SURROUNDINGS.entropy = random.Random(f"{plan.seed}:entropy")
    HOOKS.disk = world._disk
    # The name of the directory is another one each time.
    TELLER.tell = lambda text: world.tell(text.replace(str(directory), "DIRECTORY"))
    loop.set_exception_handler(world.on_error)
    try:
        loop.run(world.run())
    except Deadlock:
        world.history.errors.append("nothing is left to happen, and the run has not ended")
    except Exception as error:
        world.history.errors.append(f"{type(error).__name__}: {error}")
        world.tell(f"the run ends with {type(error).__name__}: {error}")
    steps, seconds = loop.steps, loop.now() - START
    trace = loop.trace_hash() if keeps_trace else ""
    TELLER.tell = lambda text: None
    loop.set_exception_handler(lambda loop, context: None)
    abandon_all()
    loop.end()
    return Run(plan, world.history, steps, seconds, trace)


simulated_disk.install()
gateway_process.install()
# The first run must not differ by what it loads.
for name in ("gateway.app.outbox_service", "gateway.outbox.open_outbox", _DIALECT):
    importlib.import_module(name)

# What is loaded by now stays, and need not be looked at after each run.
gc.collect()
gc.freeze()
