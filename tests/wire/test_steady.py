"""A gateway process under long bodies, slow callers and slow platforms: what it costs others."""

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
from tests.doubles.platform import Line, Platform, fhir, read_body
from tests.doubles.processes import GatewayProcess, start_gateway
from tests.doubles.sso import Sso
from tests.doubles.wire import Wire, ask, get

MIB: Final = 1024 * 1024
SIZE: Final = 100 * MIB
PIECE: Final = 64 * 1024
ALLOWED: Final = 16 * MIB
READ = get("/fhir/Patient/1")


@dataclass
class Stage:
    """A gateway process between the doubles."""

    process: GatewayProcess
    platform: Platform

    @property
    def address(self) -> ListenAddress:
        """Where callers reach it."""
        host, port = self.process.url.removeprefix("http://").removesuffix("/fhir").split(":")
        return ListenAddress(host=host, port=int(port))

    def memory(self, name: str) -> int:
        """`VmRSS` or `VmHWM` (the most so far) in bytes."""
        text = Path(f"/proc/{self.process.process.popen.pid}/status").read_text()
        found = re.search(rf"^{name}:\s+(\d+) kB$", text, re.MULTILINE)
        assert found is not None
        return int(found[1]) * 1024

    async def warm_up(self) -> int:
        """Serve a little of everything, so that what is there once is there; gives its memory."""
        for _ in range(20):
            assert (await ask(self.address, READ)).status == 200
        return self.memory("VmRSS")


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a gateway process with some sections of the settings."""
    async with contextlib.AsyncExitStack() as stack:
        platform = await stack.enter_async_context(Platform())
        sso = await stack.enter_async_context(Sso())

        async def begin(**sections: Any) -> Stage:
            settings = {
                "platform": {"fhir_base_url": platform.url},
                "sso": {"token_url": sso.token_url},
                "credentials": {"default": {"client_id": "a", "client_secret": "planted"}},
                "shutdown": {"delay": 0, "drain_timeout": 1},
                "limits": {"max_body_bytes": 2 * SIZE},
                **sections,
            }
            process = start_gateway(settings, tmp_path)
            stack.push_async_callback(asyncio.to_thread, process.process.terminate)
            await process.until_status(200)
            return Stage(process, platform)

        yield begin


def json_pieces(total: int, link: str) -> list[bytes]:
    """A Bundle of that size with a link in each entry, in pieces that are always the same ones."""
    entry = b'{"fullUrl":"%s/Patient/1","resource":{"resourceType":"Patient"},"x":"' % link.encode()
    entry += b"x" * (PIECE - len(entry) - 3) + b'"},'
    return [entry] * (total // PIECE)


def answering(head: bytes, pieces: list[bytes], tail: bytes) -> Callable[[Line], Any]:
    """Answer with so many bytes in chunks, as fast as they are taken."""

    async def answer(line: Line) -> None:
        await read_body(line.reader, line.seen)
        line.writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for piece in (*pieces, tail):
            line.writer.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            await line.writer.drain()
        line.writer.write(b"0\r\n\r\n")

    return answer


async def swallow(reader: asyncio.StreamReader, length: int | None = None) -> int:
    """Read a body, in chunks where its length is not known, forget it, and give its length."""
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


@pytest.mark.parametrize("kind", ["unchanged", "rewritten"])
async def test_long_answer(start: Start, kind: str) -> None:
    """100 MiB from the platform to a caller: memory does not grow with them."""
    stage = await start()
    link = stage.platform.url if kind == "rewritten" else "https://elsewhere.example"
    media = b"application/fhir+json" if kind == "rewritten" else b"application/octet-stream"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\n" % media
    pieces = [b'{"resourceType":"Bundle","type":"searchset","entry":[', *json_pieces(SIZE, link)]
    before = await stage.warm_up()
    stage.platform.answer(answering(head, pieces, b"{}]}"))
    async with await Wire.open(stage.address) as wire:
        await wire.send(get("/fhir/Patient" if kind == "rewritten" else "/fhir/Binary/1"))
        assert await wire.interim() == 200
        received = await swallow(wire.reader)
    sent = sum(map(len, pieces)) + 4
    shorter = (len(pieces) - 1) * (len(link) - len("http://gateway/fhir"))
    assert received == sent - (shorter if kind == "rewritten" else 0)
    assert stage.memory("VmHWM") - before < ALLOWED


@pytest.mark.parametrize(
    ("kind", "framing"),
    [("unchanged", "chunks"), ("rewritten", "chunks"), ("unchanged", "length")],
)
async def test_long_request(start: Start, kind: str, framing: str) -> None:
    """100 MiB from a caller to the platform: memory does not grow with them."""
    stage = await start()
    taken: list[int] = []

    async def take(line: Line) -> None:
        length = line.seen.header("content-length")
        taken.append(await swallow(line.reader, None if length is None else int(length)))
        line.seen.complete = True
        line.writer.write(fhir())

    before = await stage.warm_up()
    stage.platform.answer(take)
    link = "http://gateway/fhir" if kind == "rewritten" else "https://elsewhere.example"
    media = "application/fhir+json" if kind == "rewritten" else "application/octet-stream"
    pieces = [
        b'{"resourceType":"Bundle","type":"batch","entry":[',
        *json_pieces(SIZE, link),
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
        assert (await wire.reply()).status == 200
    longer = (len(pieces) - 2) * (len(stage.platform.url) - len(link))
    assert taken == [sent + (longer if kind == "rewritten" else 0)]
    assert stage.memory("VmHWM") - before < ALLOWED


# What the machine itself holds between two programs, by its own limits for each direction.
def _machine_buffers() -> int:
    limits = [Path(f"/proc/sys/net/ipv4/tcp_{name}mem").read_text().split()[2] for name in "rw"]
    return sum(map(int, limits))


async def test_slow_reader_holds_back_the_platform(start: Start) -> None:
    """A caller that reads 10 kB a second: the platform can write no more than the buffers hold."""
    stage = await start()
    written = 0
    stopped = asyncio.Event()

    async def endless(line: Line) -> None:
        nonlocal written
        await read_body(line.reader, line.seen)
        line.writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
        line.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PIECE)
        with contextlib.suppress(ConnectionError):
            while written < SIZE:
                line.writer.write(b" " * PIECE)
                await line.writer.drain()
                written += PIECE
        stopped.set()

    before = await stage.warm_up()
    stage.platform.answer(endless)
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
        assert (await ask_other(stage)).status == 200
    assert PIECE < written < _machine_buffers() + 4 * MIB < SIZE
    assert stage.memory("VmHWM") - before < ALLOWED
    # The caller is gone now, and with it the platform's connection.
    await stopped.wait()


async def ask_other(stage: Stage) -> Any:
    """Another caller is served meanwhile."""
    stage.platform.script(fhir())
    return await ask(stage.address, READ)


async def test_slow_platform_holds_back_the_caller(start: Start) -> None:
    """A platform that does not read: the caller can write no more than the buffers hold."""
    stage = await start()
    release = asyncio.Event()

    async def deaf(line: Line) -> None:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await release.wait()
        line.writer.transport.abort()

    before = await stage.warm_up()
    stage.platform.answer(deaf)
    async with await Wire.open(stage.address) as wire:
        await wire.send(get("/fhir/Binary", f"Content-Length: {SIZE}", method="POST"))
        written = 0
        with contextlib.suppress(TimeoutError):
            while written < SIZE:
                await asyncio.wait_for(wire.send(b"x" * PIECE), 5)
                written += PIECE
        assert PIECE < written < 2 * _machine_buffers() + 4 * MIB < SIZE
        assert stage.memory("VmHWM") - before < ALLOWED
        assert (await ask_other(stage)).status == 200
        release.set()


SLOW = {
    "headers": ("-H", "-i", "1"),
    "body": ("-B", "-i", "1", "-s", "8192"),
    "reading": ("-X", "-w", "16", "-y", "32", "-n", "1", "-z", "16", "-k", "1"),
}


async def test_slowhttptest(start: Start, tmp_path: Path) -> None:
    """Slow headers, slow bodies and slow reading, all at once: other callers are served."""
    program = shutil.which("slowhttptest")
    if program is None:
        pytest.skip("slowhttptest is missing: make test-tools")
    stage = await start(limits={"header_timeout": 1})
    stage.platform.answer(fhir(b'{"resourceType":"Binary","data":"%s"}' % (b"x" * MIB)))
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
        assert (await ask(stage.address, READ)).status == 200
        served += 1
        await asyncio.sleep(0.02)
    for output, _ in await gathered:
        plain = re.sub(rb"\x1b\[[0-9;]*[A-Za-z]", b"", output)
        available = re.findall(rb"service available:\s*(\w+)", plain)
        assert set(available) == {b"YES"}, plain[-2000:]
    assert served
    assert stage.memory("VmHWM") < 300 * MIB
