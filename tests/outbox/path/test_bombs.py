"""Compressed bodies that expand greatly, beside a caller with small writes."""

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.doubles.platform import Platform
from tests.doubles.processes import GatewayProcess, start_gateway
from tests.doubles.relay import Relay
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until
from tests.extent import left_to_ci
from tests.outbox.path.conftest import Open, outbox_in

LOG = logging.getLogger(__name__)
MIB = 1 << 20
FHIR = {"Content-Type": "application/fhir+json", "X-Api-Key": "a-long-key-of-mallory"}
ZIPPED = {**FHIR, "Content-Encoding": "gzip", "Prefer": "respond-async"}
CALLERS = [
    {"name": name, "networks": ["127.0.0.0/8"], "api_key": f"a-long-key-of-{name}"}
    for name in ("mallory", "ward")
]


def bomb(inner: bytes, size: int, start: bytes = b"[", end: bytes = b"0]") -> bytes:
    """Return a compressed resource with `size` octets of repeated content."""
    before = b'{"resourceType":"Observation","a":' + start
    return gzip.compress(before + inner * (size // len(inner)) + end + b"}", 9)


OBJECT = b'{"a":1},'
# What is repeated, up to which size, how many of them, and what stands around it.
BOMBS: dict[str, list[tuple[int, bytes, int, bytes, bytes]]] = {
    "objects": [(6, OBJECT, 20_000_000, b"[", b"0]"), (1, OBJECT, 64_000_000, b"[", b"0]")],
    "numbers": [(3, b"1,", 60_000_000, b"[", b"0]")],
    "arrays": [(3, b"[],", 60_000_000, b"[", b"0]")],
    "text": [(3, b"a", 64_000_000, b'"', b'"')],
    "wide text": [(3, b"a", 9_000_000, '"\U0001f600'.encode(), b'"')],
    "patients in a text": [(3, b"Patient/5 ", 10_000_000, b'"', b'"')],
    "query in a text": [(3, b"a=1&", 10_000_000, b'"Patient?', b'"')],
    "criteria": [(3, b"1,", 10_000_000, b'"Patient?identifier=', b'"')],
}


def bombs(kind: str) -> list[bytes]:
    if kind == "xml":
        begin, end = b'<Observation xmlns="http://hl7.org/fhir">', b"</Observation>"
        return [gzip.compress(begin + b"<a/>" * 9_000_000 + end)] * 3
    made = []
    for count, inner, size, start, end in BOMBS[kind]:
        made += [bomb(inner, size, start, end)] * count
    return made


@asynccontextmanager
async def gateway(directory: Path) -> AsyncIterator[GatewayProcess]:
    async with Sso() as sso, Platform() as platform, Relay(platform.port) as relay:
        relay.cut()
        settings = gateway_settings(
            f"http://127.0.0.1:{relay.port}/r5",
            sso.token_url,
            callers=CALLERS,
            retries={"max_attempts": 1},
            outbox=outbox_in(directory),
        )
        process = start_gateway(settings, directory)
        try:
            await process.wait_for_status(200)
            yield process
        finally:
            process.process.terminate()


def memory(process: GatewayProcess, field: str = "VmRSS") -> int:
    """In bytes; `VmHWM` is the most that it ever had."""
    status = Path(f"/proc/{process.process.popen.pid}/status").read_text()
    found = re.search(rf"{field}:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


async def post(base: str, body: bytes, **fields: str) -> tuple[int, str | None]:
    headers = {**ZIPPED, **fields}
    async with aiohttp.request(
        "POST", f"{base}/Observation", data=io.BytesIO(body), headers=headers
    ) as answer:
        await answer.read()
        return answer.status, answer.headers.get("X-Gateway-Error")


@asynccontextmanager
async def steady_writes(base: str) -> AsyncIterator[list[float]]:
    took: list[float] = []
    headers = {**FHIR, "X-Api-Key": "a-long-key-of-ward", "Prefer": "respond-async"}

    async def call() -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                started = time.monotonic()
                url = f"{base}/Observation/{len(took)}"
                body = b'{"resourceType":"Observation"}'
                async with session.put(url, data=body, headers=headers) as answer:
                    assert answer.status == 202, await answer.text()
                took.append(time.monotonic() - started)
                await asyncio.sleep(0.02)

    task = asyncio.ensure_future(call())
    try:
        yield took
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()


@pytest.mark.parametrize("kind", left_to_ci([*BOMBS, "xml"], but=3))
async def test_a_small_body_takes_little_memory(tmp_path: Path, kind: str) -> None:
    bodies = bombs(kind)
    fields = {"Content-Type": "application/fhir+xml"} if kind == "xml" else {}
    async with gateway(tmp_path) as process:
        await post(process.url, gzip.compress(b'{"resourceType":"Observation"}'))
        async with steady_writes(process.url) as took:
            await wait_until(lambda: len(took) >= 3)
            before = memory(process)
            calls = (post(process.url, body, **fields) for body in bodies)
            answers = await asyncio.gather(*calls)
            seen = len(took)
            await wait_until(lambda: len(took) >= seen + 3)
        grown = memory(process, "VmHWM") - before
    LOG.info("%.1f MiB, slowest of %d: %d ms", grown / MIB, len(took), max(took) * 1000)
    assert grown < 64 * MIB
    # Kept where it was small enough to be judged, else refused: nothing between.
    assert set(answers) <= {(503, "outbox-full"), (202, None)}


def dense(entries: int) -> bytes:
    """A Bundle as laboratories send it."""
    each = (
        b'{"request":{"method":"POST","url":"Observation"},"resource":{"resourceType":"Observation"'
        b',"status":"final","valueQuantity":{"value":1.10,"unit":"mmol/l"},"subject":{"reference":'
        b'"Patient/5"}}}'
    )
    return b'{"resourceType":"Bundle","type":"transaction","entry":[%s]}' % b",".join(
        [each] * entries
    )


DOCUMENT = b'{"resourceType":"DocumentReference","content":[{"data":"%s"}]}'


@pytest.mark.parametrize("kind", ["document", "bundle", "gzip"])
async def test_large_bodies_are_queued(opened: Open, kind: str) -> None:
    path, body, fields = {
        "document": ("/DocumentReference", DOCUMENT % (b"JVBERi0x" * 1_000_000), {}),
        "bundle": ("", dense(15_000), {}),
        "gzip": ("/Bundle", gzip.compress(dense(5_000)), {"Content_Encoding": "gzip"}),
    }[kind]
    async with opened() as setup:
        setup.relay.cut()
        assert (await setup.enqueue("POST", path, body, **fields)).state == "queued"


async def test_a_write_that_cannot_be_classified_does_not_overtake(opened: Open) -> None:
    fields = {"Content_Encoding": "gzip", "Prefer": "respond-async"}
    small = bomb(OBJECT, 20_000_000)
    async with opened(callers=CALLERS) as setup:
        mallory, ward = ({"X_Api_Key": f"a-long-key-of-{each['name']}"} for each in CALLERS)
        path = "/Observation/9"
        reply = await setup.ask("PUT", path, io.BytesIO(small), **fields, **ward)
        assert reply.status == 200
        setup.relay.cut()
        reply = await setup.ask("PUT", path, io.BytesIO(small), **fields, **ward)
        assert reply.headers["X-Gateway-Error"] == "upstream-unreachable"
        assert (await setup.write(**mallory)).status == 202
        reply = await setup.ask("PUT", path, io.BytesIO(small), **fields, **mallory)
        assert reply.headers["X-Gateway-Error"] == "outbox-full"
