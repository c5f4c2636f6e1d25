"""Examples with lookalikes of links through a running gateway, in JSON and XML, both ways."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from gateway import sandbox
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, http
from tests.doubles.wire import Response, fetch, get, post
from tests.pipeline import shared

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway

DATA = Path(sandbox.__file__).with_name("data")
FILES = sorted([*DATA.glob("*.json"), *DATA.glob("xml/*.xml")])
PLATFORM = "https://playground.dhp.uz/fhir"

# Every path whose value changes; all other values, and all other files, stay unchanged.
CHANGES: dict[str, set[str]] = {
    "bundle-searchset-page2": {
        "link/0/url",
        "link/1/url",
        "link/2/url",
        "entry/0/fullUrl",
        "entry/1/fullUrl",
        "entry/2/fullUrl",
    },
    "bundle-transaction": {"entry/4/fullUrl"},
    "diagnosticreport-cbc": {"subject/reference", "presentedForm/0/url"},
    "documentreference-report": {"content/0/attachment/url"},
}
GATEWAY = "http://gateway/fhir"


def strings(value: Any, place: str = "") -> dict[str, str]:
    """Return every string of a JSON value by its path."""
    if isinstance(value, str):
        return {place: value}
    members = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for key, item in members if isinstance(value, dict | list) else ():
        if isinstance(item, str | dict | list):
            found |= strings(item, f"{place}/{key}".lstrip("/"))
    return found


def of_platform(path: Path, platform: Platform) -> bytes:
    """Return the example with the platform's base in links and lookalikes."""
    return path.read_bytes().replace(PLATFORM.encode(), platform.url.encode())


def media_type(path: Path) -> str:
    return f"application/fhir+{path.suffix[1:]}; charset=utf-8"


def response_with(path: Path, body: bytes, *headers: tuple[str, str]) -> bytes:
    return http(200, body, ("Content-Type", media_type(path)), *headers)


def in_chunks(path: Path, body: bytes) -> bytes:
    """Return the same response in many chunks."""
    pieces = [body[at : at + 61] for at in range(0, len(body), 61)]
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    kind, coding = ("Content-Type", media_type(path)), ("Transfer-Encoding", "chunked")
    return http(200, b"", kind, coding, length=False) + chunks + b"0\r\n\r\n"


def assert_only_links_changed(path: Path, sent: bytes, received: bytes, platform: Platform) -> None:
    """Check that exactly the listed places name the gateway and no other octet differs."""
    changes = CHANGES.get(path.stem, set())
    assert received.count(GATEWAY.encode()) == len(changes)
    assert received.replace(GATEWAY.encode(), platform.url.encode()) == sent
    if path.suffix == ".json":
        before, after = strings(json.loads(sent)), strings(json.loads(received))
        assert {place for place in before if before[place] != after[place]} == changes


async def served(gateway: RunningGateway, path: Path, *headers: str) -> Response:
    accept = f"Accept: {media_type(path).partition(';')[0]}"
    return await fetch(gateway.address, get("/fhir/Basic/1", accept, *headers))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_exactly_the_links_change_in_chunks_and_in_gzip(
    gateway: RunningGateway, platform: Platform, path: Path
) -> None:
    sent = of_platform(path, platform)
    compressed_answer = response_with(path, gzip.compress(sent), ("Content-Encoding", "gzip"))
    platform.script(in_chunks(path, sent), compressed_answer)
    chunked = (await served(gateway, path)).body
    compressed = (await served(gateway, path, "Accept-Encoding: gzip")).body
    assert_only_links_changed(path, sent, chunked, platform)
    assert gzip.decompress(compressed) == chunked


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
async def test_a_response_sent_back_reaches_the_platform_as_it_was(
    gateway: RunningGateway, platform: Platform, path: Path
) -> None:
    sent = of_platform(path, platform)
    platform.script(response_with(path, sent))
    received = (await served(gateway, path)).body
    kind = f"Content-Type: {media_type(path)}"
    await fetch(gateway.address, post("/fhir/Basic/1", received, kind, method="PUT"))
    assert platform.requests[-1].body == sent
