"""The event loop and network of a run: the only module that knows simloop.

simloop's names that begin with an underscore are used in its pinned version alone. What is added to
it: orders of callbacks that asyncio permits, threads (`simulated_threads`), hosts that die like a
process or like a machine without power, data that is split, and the time at which what arrives was
sent.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Literal

from simloop import SimLoop, SimulationDeadlockError
from simloop._net import SimNetwork, SimServer, _current_host, _Listener, _Packet
from simloop._policy import PCTPolicy
from simloop._transports import _SimSocket, _SimStreamTransport

from tests.simulation.simulated_threads import SimulatedThread

# "instants": callbacks run in the order of `call_soon`, as in asyncio, but all that becomes due in
# one instant comes in any order. "random": any order of all that is ready, which is more than
# asyncio permits. "priorities": few changes between tasks (PCT).
Order = Literal["instants", "random", "priorities"]
# The clock begins above zero, as every machine's does.
START = 1000.0
# The length of a run that PCT expects, in callbacks.
_STEPS_OF_A_RUN = 4_000
_ROUNDS_AT_THE_END = 3
_MAX_STEPS_AT_THE_END = 10_000
# Callbacks after which a run that has not ended goes round in circles.
_MAX_STEPS = 150_000

Deadlock = SimulationDeadlockError


class EndlessRunError(Exception):
    """Something happens again and again."""


class _InOrder:
    diverged_at = None

    def choose(self, ready: Sequence[object]) -> int:
        return 0


class _Silent:
    """Records nothing: the history of a run in words is enough where it is not compared."""

    def record(self, *event: object) -> None:
        pass

    def __len__(self) -> int:
        return 0


class Network(SimNetwork):
    """Hosts and the links between them."""

    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__(loop)
        self._sent_at: dict[int, float] = {}
        # When the bytes were sent that a protocol receives now.
        self.sent_at = 0.0
        self._is_coarse = False
        self.max_fragment: int | None = None
        self._aborted: set[tuple[Any, str]] = set()
        self._fragments = random.Random(f"{loop.seed}:fragments")

    def is_alive(self, name: str) -> bool:
        return self._alive.get(name, False)

    def spawn(self, name: str, coroutine: Any) -> asyncio.Task[Any]:
        """Start a task on a host, which exists from then on."""
        return self.host(name).create_task(coroutine)

    def run_on(self, name: str, function: Callable[[], Any]) -> Any:
        """Call a function as one of a host."""
        token = _current_host.set(self.host(name).name)
        try:
            return function()
        finally:
            _current_host.reset(token)

    def kill(self, name: str, *, reset: bool, silent: bool) -> None:
        """Let a host die: what it sent before arrives, tasks and connections end.

        Its peers see the end of each connection or a reset, as from the kernel of a dead process,
        or with `silent` nothing, as from a machine without power.
        """
        streams = [each for key, each in self._streams.items() if key[1] == name]
        if not silent:
            for stream in streams:
                stream._send("rst" if reset else "fin")
        self._alive[name] = False
        for key in [key for key in self._listeners if key[0] == name]:
            self._listeners[key].server.close()
        for stream in streams:
            stream._finish(None)
        for task in list(self._tasks[name]):
            task.cancel()
        self._held = [packet for packet in self._held if name not in (packet.src, packet.dst)]

    def set_latency(self, latency: tuple[float, float], *, is_coarse: bool) -> None:
        """Let packets take a time between two, or with `is_coarse` one of both."""
        self.set_defaults(latency=latency)
        self._is_coarse = is_coarse

    def listen(self, port: int, factory: Callable[[], Any]) -> SimServer:
        """Listen on a port of the host that runs now."""
        address = (_current_host.get(), port)
        server = SimServer(self, *address)
        self._listeners[address] = _Listener(factory=factory, server=server)
        return server

    def cut(self, host: str, other: str) -> None:
        """Let nothing pass between two hosts."""
        self._cuts.add(frozenset((host, other)))

    def mend(self, host: str) -> None:
        """Let all links of a host work again.

        What an aborted connection had not got through is lost.
        """
        self._cuts = {cut for cut in self._cuts if host not in cut}
        aborted = {(each.conn, each.src) for each in self._held if each.kind == "rst"}
        self._aborted |= aborted
        held, self._held = self._held, []
        for packet in held:
            if packet.kind == "data" and (packet.conn, packet.src) in aborted:
                packet.kind = "lost"
            self._transmit(packet)

    def tasks_of(self, name: str) -> list[asyncio.Task[Any]]:
        return [task for task in self._tasks.get(name, ()) if not task.done()]

    def connections_of(self, name: str) -> int:
        return sum(key[1] == name for key in self._streams)

    def reset_peers(self, name: str) -> None:
        """Reset the connections of others to a dead host, as its successor's kernel would."""
        for stream in [each for each in self._streams.values() if each._remote[0] == name]:
            stream._reset_arrived()

    def _trace(self, verb: str, packet: _Packet) -> None:
        if self._loop.keeps_trace:  # type: ignore[attr-defined]
            super()._trace(verb, packet)

    def _is_cut(self, a: str, b: str) -> bool:
        return bool(self._cuts) and super()._is_cut(a, b)

    def _transmit(self, packet: _Packet) -> None:
        if not self._alive[packet.src]:
            return
        self._sent_at.setdefault(packet.uid, self._loop._true_time())
        super()._transmit(packet)

    def _schedule(self, packet: _Packet, latency: tuple[float, float]) -> None:
        if self._is_coarse:
            latency = (self._rng.choice(latency),) * 2
        super()._schedule(packet, latency)

    def _deliver(self, packet: _Packet) -> None:
        if not self._alive[packet.dst]:
            self._trace("lost", packet)
            return
        if self._is_cut(packet.src, packet.dst):
            self._blackhole(packet)
            return
        self._trace("deliver", packet)
        token = _current_host.set(packet.dst)
        try:
            self._dispatch_stream(packet)
        finally:
            _current_host.reset(token)

    def _dispatch_ready(self, packet: _Packet) -> None:
        if packet.kind == "data" and (packet.conn, packet.src) in self._aborted:
            # It had overtaken a part that is lost.
            return
        self.sent_at = self._sent_at.pop(packet.uid, 0.0)
        super()._dispatch_ready(packet)


class SimulatedLoop(SimLoop):
    """A loop whose order, delays of threads and network all follow from `seed`.

    Without a trace what only a trace needs is left out, which is most of what simloop does for a
    callback. The order is the same.
    """

    def __init__(self, seed: int, order: Order, *, keeps_trace: bool) -> None:
        super().__init__(seed)
        self.keeps_trace = keeps_trace
        # The number of callbacks that have run.
        self.steps = 0
        self._has_ended = False
        self._now = START
        self._net = Network(self)
        self._net.set_flow_control()
        if not keeps_trace:
            self._recorder = _Silent()  # type: ignore[assignment]
        self._instants = random.Random(f"{seed}:instants") if order == "instants" else None
        if order == "instants":
            self._policy = _InOrder()  # type: ignore[assignment]
        elif order == "priorities":
            self._policy = PCTPolicy(seed, horizon=_STEPS_OF_A_RUN)
        self.thread_delay: Callable[[], float] = lambda: 0.0

    @property
    def network(self) -> Network:
        network: Network = self._net  # type: ignore[assignment]
        return network

    def now(self) -> float:
        """Return the monotonic time of all hosts."""
        return self._now

    def run(self, coroutine: Any) -> Any:
        """Run to the end of a coroutine, return its result."""
        return self.run_until_complete(coroutine)

    def end(self) -> None:
        """Cancel what is left, let it end as far as it does without time passing, and close."""
        self._has_ended = True
        asyncio.events._set_running_loop(self)
        try:
            for _ in range(_ROUNDS_AT_THE_END):
                for tasks in self._net._tasks.values():
                    for task in tasks:
                        task.cancel()
                last = self.steps + _MAX_STEPS_AT_THE_END
                while self._ready and self.steps < last:
                    self._step()
        finally:
            asyncio.events._set_running_loop(None)
        self.close()

    def is_host_alive(self) -> bool:
        """Return whether the host lives that the running callback is of."""
        return self._net._alive.get(_current_host.get(), False)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> asyncio.Future[Any]:
        """Run a function in a simulated thread, which ends after the delay of a thread."""
        future = self.create_future()

        def work() -> None:
            if future.cancelled():
                return
            try:
                result = func(*args)
            except BaseException as error:
                if not future.done():
                    future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        SimulatedThread(target=work).start()
        return future

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.Handle:
        if self.keeps_trace:
            return super().call_soon(callback, *args, context=context)
        self._check_closed()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((self._next_seq, "", handle, callback))
        self._next_seq += 1
        return handle

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        # No host's clock is set forward or back: `world` does that to the wall clock alone.
        if self.keeps_trace:
            return super().call_at(when, callback, *args, context=context)
        self._check_closed()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        heapq.heappush(self._timers, (when, self._next_seq, "", timer, callback))
        self._next_seq += 1
        return timer

    def time(self) -> float:
        return self._now

    def _step(self) -> None:
        if self.steps >= _MAX_STEPS and not self._has_ended:
            raise EndlessRunError(f"{_MAX_STEPS} callbacks have run")
        self.steps += 1
        if self.keeps_trace:
            super()._step()
            return
        if not self._ready:
            self._advance_clock()
        index = self._policy.choose(self._ready_views) if self._instants is None else 0
        handle = self._ready.pop(index)[2]
        if not handle.cancelled():
            handle._run()

    def _advance_clock(self) -> None:
        super()._advance_clock()
        if self._instants is not None and len(self._ready) > 1:
            self._instants.shuffle(self._ready)


def host_of(context: Context) -> str:
    """Return the host of what runs in a context."""
    host: str = context.get(_current_host, "")
    return host


def current_host() -> str:
    return _current_host.get()


_whole_send = _SimStreamTransport._send


def _send_in_fragments(self: _SimStreamTransport, kind: str, payload: bytes = b"") -> None:
    """Send data in several packets, as TCP may."""
    network: Network = self._net  # type: ignore[assignment]
    if kind != "data" or network.max_fragment is None:
        _whole_send(self, kind, payload)
        return
    while payload:
        size = network._fragments.randint(1, network.max_fragment)
        _whole_send(self, kind, payload[:size])
        payload = payload[size:]


def _write(self: _SimStreamTransport, data: Any) -> None:
    # asyncio ignores what is written to a closing transport.
    if not (self._eof_sent or self._closing or self._closed):
        _whole_write(self, data)


_whole_write = _SimStreamTransport.write
_SimStreamTransport.write = _write  # type: ignore[method-assign]
_SimStreamTransport._send = _send_in_fragments  # type: ignore[method-assign]
# The socket of a connection that did not fail.
_SimSocket.getsockopt = lambda self, *option: 0  # type: ignore[attr-defined]
