"""A gateway process under long bodies, slow callers and slow platforms."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.config.value_types import ListenAddress
from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body
from tests.doubles.processes import GatewayProcess, start_gateway
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, fetch, get
from tests.extent import left_to_ci

MIB: Final = 1024 * 1024
SIZE: Final = 100 * MIB
PIECE: Final = 64 * 1024
ALLOWED: Final = 16 * MIB
READ = get("/fhir/Patient/1")


@dataclass
class Testbed:
    """A gateway process between the doubles."""

    __test__ = False  # for pytest, which collects names that begin with Test

    process: GatewayProcess
    platform: Platform

    @property
    def address(self) -> ListenAddress:
        host, port = self.process.url.removeprefix("http://").removesuffix("/fhir").split(":")
        return ListenAddress(host=host, port=int(port))

    def memory(self, name: str) -> int:
        """Return `VmRSS` or `VmHWM` (the peak) in octets."""
        text = Path(f"/proc/{self.process.process.popen.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    async def warm_up(self) -> int:
        """Serve some of everything, and return the memory after that."""
        for _ in range(20):
            assert (await fetch(self.address, READ)).status == 200
        return self.memory("VmRSS")


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Yield a function that starts a gateway process with some settings changed."""
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(Platform())
        sso = await stack.enter_async_context(Sso())

        async def begin(**sections: Any) -> Testbed:
            usual = {"shutdown": {"drain_timeout": 1}, "limits": {"max_body_bytes": 2 * SIZE}}
            settings = gateway_settings(platform.url, sso.token_url, **usual | sections)
            process = start_gateway(settings, tmp_path)
            stack.push_async_callback(asyncio.to_thread, process.process.terminate)
            await process.wait_for_status(200)
            return Testbed(process, platform)

        yield begin


def json_chunks(total: int, link: str) -> list[bytes]:
    entry = b'{"fullUrl":"%s/Patient/1","resource":{"resourceType":"Patient"},"x":"' % link.encode()
    entry += b"x" * (PIECE - len(entry) - 3) + b'"},'
    return [entry] * (total // PIECE)


def responding(
    head: bytes, pieces: list[bytes], tail: bytes
) -> Callable[[PlatformConnection], Any]:
    """Respond with so many octets in chunks, as fast as they are read."""

    async def respond(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (*pieces, tail):
            connection.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await connection.writer.drain()
        connection.writer.write(b"0\r\n\r\n")

    return respond


async def read_length(reader: asyncio.StreamReader, length: int | None = None) -> int:
    """Read a body, and return its length."""
    total = 0
    if length is not None:
        while total < length:
            total += len(await reader.read(min(PIECE, length - total)))
        return total
    while size := int(await reader.readuntil(b"\r\n"), 16):
        await reader.readexactly(size + 2)
        total += size
    await reader.readexactly(2)
    return total


@pytest.mark.parametrize("kind", left_to_ci(["rewritten", "unchanged"], but=1))
async def test_a_response_of_100_mib_takes_no_memory(start: Start, kind: str) -> None:
    stage = await start()
    link = stage.platform.url if kind == "rewritten" else "https://elsewhere.example"
    media = b"application/fhir+json" if kind == "rewritten" else b"application/octet-stream"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" % media
    pieces = [b'{"resourceType":"Bundle","type":"searchset","entry":[', *json_chunks(SIZE, link)]
    before = await stage.warm_up()
    stage.platform.respond(responding(head, pieces, b"{}]}"))
    async with await Wire.open(stage.address) as wire:
        await wire.send(get("/fhir/Patient" if kind == "rewritten" else "/fhir/Binary/1"))
        assert await wire.read_interim_status() == 200
        received = await read_length(wire.reader)
    sent = sum(map(len, pieces)) + 4
    shorter = (len(pieces) - 1) * (len(link) - len("http://gateway/fhir"))
    assert received == sent - (shorter if kind == "rewritten" else 0)
    assert stage.memory("VmHWM") - before < ALLOWED


@pytest.mark.parametrize(
    ("kind", "framing"),
    left_to_ci([("unchanged", "length"), ("unchanged", "chunks"), ("rewritten", "chunks")], but=1),
)
async def test_a_request_of_100_mib_takes_no_memory(start: Start, kind: str, framing: str) -> None:
    stage = await start()
    taken: list[int] = []

    async def take(connection: PlatformConnection) -> None:
        length = connection.request.header("content-length")
        taken.append(await read_length(connection.reader, None if length is None else int(length)))
        connection.request.complete = True
        connection.writer.write(fhir())

    before = await stage.warm_up()
    stage.platform.respond(take)
    link = "http://gateway/fhir" if kind == "rewritten" else "https://elsewhere.example"
    media = "application/fhir+json" if kind == "rewritten" else "application/octet-stream"
    pieces = [
        b'{"resourceType":"Bundle","type":"batch","entry":[',
        *json_chunks(SIZE, link),
        b"{}]}",
    ]
    target = "/fhir" if kind == "rewritten" else "/fhir/Binary"
    sent = sum(map(len, pieces))
    chunked = framing == "chunks"
    framed = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {sent}"
    async with await Wire.open(stage.address) as wire:
        await wire.send(get(target, f"Content-Type: {media}", framed, method="POST"))
        for piece in pieces:
            await wire.send(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
        await wire.send(b"0\r\n\r\n" if chunked else b"")
        assert (await wire.read_response()).status == 200
    longer = (len(pieces) - 2) * (len(stage.platform.url) - len(link))
    assert taken == [sent + (longer if kind == "rewritten" else 0)]
    assert stage.memory("VmHWM") - before < ALLOWED


# What the machine itself holds between two programs, by its own limits for each direction.
def _machine_buffers() -> int:
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{name}mem").read_text().split()[2] for name in "rw"]
    return sum(map(int, limits))


async def test_a_slow_caller_pauses_the_platform(start: Start) -> None:
    """The platform can write no more than the buffers hold."""
    stage = await start()
    written = 0
    stopped = asyncio.Event()

    async def endless(connection: PlatformConnection) -> None:
        nonlocal written
        await read_body(connection.reader, connection.request)
        connection.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        connection.writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE
        )
        with contextlib.suppress(ConnectionError):
            while written < SIZE:
                connection.writer.write(b" " * PIECE)
                await connection.writer.drain()
                written += PIECE
        stopped.set()

    before = await stage.warm_up()
    stage.platform.respond(endless)
    with socket.socket() as raw:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.connect((stage.address.host, stage.address.port))
        raw.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(raw, get("/fhir/Binary/1"))
        quiet = 0
        while quiet < 15:
            held_at = written
            assert await loop.sock_recv(raw, 1000)
            await asyncio.sleep(0.1)
            quiet = quiet + 1 if written == held_at else 0
        assert (await fetch_for_another(stage)).status == 200
    assert PIECE < written < _machine_buffers() + 4 * MIB < SIZE
    assert stage.memory("VmHWM") - before < ALLOWED
    # The caller is gone now, and with it the platform's connection.
    await stopped.wait()


async def fetch_for_another(stage: Testbed) -> Any:
    stage.platform.script(fhir())
    return await fetch(stage.address, READ)


async def test_a_slow_platform_pauses_the_caller(start: Start) -> None:
    """The caller can write no more than the buffers hold."""
    stage = await start()
    release = asyncio.Event()

    async def deaf(connection: PlatformConnection) -> None:
        connection.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        connection.writer.transport.abort()

    before = await stage.warm_up()
    stage.platform.respond(deaf)
    async with await Wire.open(stage.address) as wire:
        await wire.send(get("/fhir/Binary", f"Content-Length: {SIZE}", method="POST"))
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < SIZE:
                await asyncio.wait_for(wire.send(b"x" * PIECE), 2)
                written += PIECE
        assert PIECE < written < 2 * _machine_buffers() + 4 * MIB < SIZE
        assert stage.memory("VmHWM") - before < ALLOWED
        assert (await fetch_for_another(stage)).status == 200
        release.set()


SLOW = {
    "headers": ("-H", "-i", "1"),
    "body": ("-B", "-i", "1", "-s", "8192"),
    "reading": ("-X", "-w", "16", "-y", "32", "-n", "1", "-z", "16", "-k", "1"),
}


@pytest.mark.ci
async def test_callers_are_served_beside_slowhttptest(start: Start, tmp_path: Path) -> None:
    """Slow headers, slow bodies and slow reading at once."""
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("slowhttptest is missing: make test-tools")
    stage = await start(limits={"header_timeout": 1})
    stage.platform.respond(fhir(b'{"resourceType":"Binary","data":"%s"}' % (b"x" * MIB)))
    url = f"http://{stage.address}/fhir/Patient/1"
    common = ("-c", "150", "-r", "150", "-l", "4", "-p", "30", "-u", url)
    attacks = [
        await asyncio.create_subprocess_exec(
            *(program, *options, *common),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        for options in SLOW.values()
    ]
    gathered = asyncio.gather(*(attack.communicate() for attack in attacks))
    served = 0
    while not gathered.done():
        assert (await fetch(stage.address, READ)).status == 200
        served += 1
        await asyncio.sleep(0.02)
    for output, _ in await gathered:
        plain = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", output)
        available = re.findall(rb"service available:\s*(\w+)", plain)
        assert set(available) == {b"YES"}, plain[-2000:]
    assert served
    assert stage.memory("VmHWM") < 300 * MIB
