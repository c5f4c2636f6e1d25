"""Whatever callers and platform do, no caller gets the response to another's request.

`DHP_GATEWAY_MIXING_SECONDS` sets the duration, `DHP_GATEWAY_MIXING_SEED` repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import secrets
from collections import Counter
from pathlib import Path

from tests.doubles.gateway import running_gateway
from tests.doubles.sso import Sso
from tests.doubles.wire import TruncatedResponseError, Wire, get, post
from tests.pipeline.testbed import reset_connection

CONNECTIONS = 50
SECONDS = float(os.environ.get("DHP_GATEWAY_MIXING_SECONDS", "3"))
# Responses that must reach their callers, whatever the machine's load.
ENOUGH = 100
SEED = int(os.environ.get("DHP_GATEWAY_MIXING_SEED", "0")) or secrets.randbits(32)
_NONCE = re.compile(rb"n[0-9a-f]{16}")
# A request inside a body, for a platform that does not read bodies.
_SMUGGLED = b"GET /r5/Basic/smuggled HTTP/1.1\r\nHost: x\r\n\r\n"


class RandomPlatform:
    """A platform that names request and caller in each response, and misbehaves at random."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._writers: set[asyncio.StreamWriter] = set()
        self.served: Counter[str] = Counter()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while await self._exchange(reader, writer):
                pass
        writer.transport.abort()
        self._writers.discard(writer)

    def end(self) -> None:
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        method, target = head.split(b" ")[:2]
        site = re.search(rb"\r\nX-Site: (\w+)", head)
        body = b'{"resourceType":"Basic","id":"%s","site":"%s"}' % (
            target.rpartition(b"/")[2],
            site[1] if site else b"nobody",
        )
        kind = self._kind(method)
        self.served[kind] += 1
        if not kind.startswith("unread"):
            await self._read(reader, head, early=kind == "early")
        await getattr(self, "_" + kind.replace(" ", "_"))(writer, method, body)
        await writer.drain()
        return kind not in ("reset", "cut", "early", "short")

    def _kind(self, method: bytes) -> str:
        kinds = ["whole"] * 8 + ["slow", "reset", "cut", "short", "long", "late none", "unread 404"]
        if method in (b"POST", b"PUT"):
            kinds += ["early", "unread 404", "unread 404"]
        return self._chance.choice(kinds)

    async def _read(self, reader: asyncio.StreamReader, head: bytes, *, early: bool) -> None:
        length = re.search(rb"\r\nContent-Length: (\d+)", head)
        if length is not None:
            await reader.readexactly(int(length[1]) // (2 if early else 1))

    def _answer(self, body: bytes, length: int | None = None, status: int = 200) -> bytes:
        size = len(body) if length is None else length
        kind = b"Content-Type: application/fhir+json\r\n"
        return b"HTTP/1.1 %d X\r\n%sContent-Length: %d\r\n\r\n" % (status, kind, size)

    async def _whole(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        # Some platforms send a body after a HEAD too.
        sends = method != b"HEAD" or self._chance.random() < 0.5
        writer.write(self._answer(body) + (body if sends else b""))

    async def _slow(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(self._answer(body))
        await asyncio.sleep(self._chance.random() / 50)
        writer.write(body)

    async def _early(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(self._answer(body, status=413) + body)
        await asyncio.sleep(0.01)

    async def _unread_404(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        await self._late_body(writer, method, body, 404)

    async def _late_none(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(b"HTTP/1.1 %d X\r\n\r\n" % self._chance.choice((204, 304)))
        await asyncio.sleep(self._chance.choice((0, 0.001, 0.02)))
        writer.write(self._answer(body) + body)

    async def _late_body(
        self, writer: asyncio.StreamWriter, method: bytes, body: bytes, status: int
    ) -> None:
        writer.write(self._answer(body, status=status))
        await asyncio.sleep(self._chance.choice((0, 0.001)))
        writer.write(body if method != b"HEAD" or self._chance.random() < 0.5 else b"")

    async def _reset(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(self._answer(body)[: self._chance.randrange(1, 40)])

    async def _cut(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(self._answer(body) + body[:10])

    async def _short(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(self._answer(body, len(body) + 5) + body)

    async def _long(self, writer: asyncio.StreamWriter, method: bytes, body: bytes) -> None:
        writer.write(self._answer(body) + body + self._answer(b"{}") + b"{}")


class RandomCallers:
    """Callers on many connections; `wrong` are responses to other requests."""

    def __init__(self, address: object, chance: random.Random) -> None:
        self._address = address
        self._chance = chance
        self.own = 0
        self.wrong: list[bytes] = []
        self.statuses: Counter[int] = Counter()

    async def run(self, site: str, until: float) -> None:
        """Connect and send requests until the time is over."""
        while asyncio.get_running_loop().time() < until or self.own <= ENOUGH:
            with contextlib.suppress(
                TruncatedResponseError, ConnectionError, AssertionError, TimeoutError
            ):
                async with await Wire.open(self._address) as wire, asyncio.timeout(60):
                    for _ in range(self._chance.randrange(1, 6)):
                        await self._ask_some(wire, site)

    async def _ask_some(self, wire: Wire, site: str) -> None:
        chance = self._chance
        asked = [self._request(site) for _ in range(chance.choice((1, 1, 1, 2, 5)))]
        data = b"".join(request for _, _, request in asked)
        manner = chance.random()
        if manner < 0.1:
            # Disconnect within the requests.
            await wire.send(data[: chance.randrange(1, len(data))])
            await asyncio.sleep(chance.random() / 50)
            reset_connection(wire)
            raise TruncatedResponseError(b"")
        if manner < 0.2:
            for at in range(0, len(data), 1 + len(data) // 4):
                await wire.send(data[at : at + 1 + len(data) // 4])
                await asyncio.sleep(0.002)
        else:
            await wire.send(data)
        if manner > 0.95:
            wire.writer.write_eof()
        for method, nonce, _ in asked:
            response = await wire.read_response(head=method == "HEAD")
            self.statuses[response.status] += 1
            self._judge(response.body, nonce, site)
        if manner > 0.95:
            # All responses arrived after the half-close.
            assert await wire.at_end()
            raise TruncatedResponseError(b"")

    def _request(self, site: str) -> tuple[str, str, bytes]:
        chance = self._chance
        nonce = f"n{chance.getrandbits(64):016x}"
        method = chance.choice(("GET", "GET", "GET", "HEAD", "DELETE", "OPTIONS", "PUT", "POST"))
        target = "/fhir/Basic" + (f"?identifier={nonce}" if method == "POST" else f"/{nonce}")
        fields = [f"X-Site: {site}", f"X-Api-Key: key-of-{site}"]
        if method == "PUT" and chance.random() < 0.3:
            fields.append("Prefer: respond-async")
        if method in ("PUT", "POST"):
            body = b'{"resourceType":"Basic","id":"%s"}' % nonce.encode()
            body = chance.choice((body, _SMUGGLED * 3, body.ljust(200_000)))
            return method, nonce, post(target, body, *fields, method=method)
        if chance.random() < 0.3:
            fields.append(f"Content-Length: {len(_SMUGGLED)}")
            return method, nonce, get(target, *fields, method=method) + _SMUGGLED
        return method, nonce, get(target, *fields, method=method)

    def _judge(self, body: bytes, nonce: str, site: str) -> None:
        """Count whose response it is; local errors of the gateway contain no nonce."""
        if b'"Basic"' not in body:
            return
        named = set(_NONCE.findall(body))
        if named == {nonce.encode()} and b'"site":"%s"' % site.encode() in body:
            self.own += 1
        else:
            self.wrong.append(body)


async def test_each_caller_gets_the_responses_to_its_own_requests(sso: Sso, tmp_path: Path) -> None:
    """Recognised by a nonce and the caller's name in each body, on 50 connections."""
    chance = random.Random(SEED)  # noqa: S311 - no secret
    platform = RandomPlatform(chance)
    server = await asyncio.start_server(platform.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/r5"
    key = tmp_path / "key"
    key.write_text("A" * 43 + "=")
    sites = [f"site{number}" for number in range(5)]
    async with running_gateway(
        url,
        sso.token_url,
        callers=[{"name": site, "api_key": f"key-of-{site}"} for site in sites],
        outbox={
            "enabled": True,
            "url": f"sqlite:///{tmp_path}/outbox.db",
            "encryption_key_file": str(key),
        },
        # The circuit must stay closed.
        circuit_breaker={"failure_ratio": 1, "min_requests": 1_000_000},
        platform={"max_connections": 20, "forward_headers": ["X-Site"]},
    ) as gateway:
        mixture = RandomCallers(gateway.address, chance)
        until = asyncio.get_running_loop().time() + SECONDS
        await asyncio.gather(
            *(mixture.run(sites[number % 5], until) for number in range(CONNECTIONS))
        )
    server.close()
    platform.end()
    what = f"seed {SEED}: {mixture.own} own answers, {dict(mixture.statuses)}, {platform.served}"
    print(what)  # noqa: T201 - for long runs
    assert not mixture.wrong, f"{what}; {len(mixture.wrong)} wrong: {mixture.wrong[:3]}"
    assert len(platform.served) > 7, what
