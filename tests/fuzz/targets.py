"""The targets of fuzzing: each takes any octets, and fails when an invariant is broken.

No target opens anything or waits for anything. Where there are variants, the first octets choose
one, so that an input is a complete case; `tests/fuzz/corpus/NAME` holds those that every test run
replays.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final
from urllib.parse import unquote
from xml.parsers import expat

from aiohttp.base_protocol import BaseProtocol

from gateway.config.inbound_settings import LimitsSettings
from gateway.errors import GatewayError
from gateway.fhir.interaction import classify, query_names
from gateway.fhir.links.link_map import LinkMap, replace_in_query
from gateway.fhir.links.rewriting import (
    is_rewritten,
    rewrite_header,
    rewrite_request_header,
    rewriter_for,
)
from gateway.http.client.response_head import ResponseFields
from gateway.http.headers import has_own_via, parse_request_fields, request_id_of
from gateway.http.request_target import resolve_target
from gateway.http.server import request_checks
from gateway.http.server.request_parser import HttpProcessingError, new_request_parser
from tests.doubles import reference
from tests.doubles.fed_connection import End, judge

_LOOP: Final = asyncio.new_event_loop()
_ENDS: Final[tuple[End, ...]] = ("eof", "reset", "open")
_PLATFORM: Final = "https://platform.example/r5"
_GATEWAY: Final = "http://gateway:8080/fhir"
_LINKS: Final = LinkMap(_PLATFORM, _GATEWAY, ())
_TYPES: Final = (
    *("application/fhir+json", "application/fhir+xml", "application/fhir+ndjson"),
    *("application/json-patch+json", "application/x-www-form-urlencoded"),
)


def response(data: bytes) -> None:
    """Parse any octets as a response of the platform, cut anywhere, ended in any way."""
    if len(data) < 2:
        return
    variant, size, stream = data[0], data[1] % 32 + 1, data[2:]
    pieces = _cut(stream, size)
    head = bool(variant & 1)
    _run(judge(stream, pieces, _ENDS[(variant >> 1) % 3], head=head))


def rewriting(data: bytes) -> None:
    """Rewrite bodies of any type in any chunks: same result, and no change without a base in it."""
    if len(data) < 2:
        return
    kind, size, body = data[0], data[1] % 32 + 1, data[2:]
    media_type = _TYPES[kind % len(_TYPES)]
    direction = "to-gateway" if kind & 64 else "to-platform"
    if not is_rewritten(media_type, direction):
        return
    whole = _rewritten(media_type, direction, [body])
    assert _rewritten(media_type, direction, _cut(body, size)) == whole, "pieces matter"
    # A host has no case, and JSON, XML and forms can encode its letters in other ways.
    plain = not any(mark in body for mark in (b"\\", b"&", b"%"))
    if plain and b"platform" not in body.lower() and b"gateway" not in body.lower():
        assert whole == body, "changed without a base in it"
    if "json" in media_type and "nd" not in media_type:
        _still_json(body, whole)
    elif "xml" in media_type:
        _still_xml(body, whole)


def fields(data: bytes) -> None:
    """Rewrite field values and queries with links in them."""
    text = data.decode("utf-8", "surrogateescape")
    for name in (b"location", b"content-location", b"link"):
        rewrite_header(_LINKS, name, data)
    for name in (b"if-none-exist", b"x-provenance"):
        rewrite_request_header(_LINKS, name, data)
    query = replace_in_query(text, _LINKS.requests)
    if "gateway" not in text.lower() and "%" not in text:
        assert query == text


def request(data: bytes) -> None:
    """Parse any octets as a caller's request; what passes all checks must have a single meaning."""
    protocol = BaseProtocol(_LOOP)
    protocol.connection_made(asyncio.Transport())
    limits = LimitsSettings(max_url_bytes=8192, max_header_bytes=16384, max_headers=200)
    parser = new_request_parser(protocol, _LOOP, limits)
    try:
        messages = parser.feed_data(data)[0]
    except HttpProcessingError:
        return
    for number, (message, payload) in enumerate(messages):
        header = parse_request_fields(message.raw_headers)
        _check_lines(header.field_lines)
        assert ResponseFields.from_pairs(message.raw_headers).downstream_lines(
            request_id_of(header).encode("ascii"), time.time
        )
        try:
            request_checks.check_message(message, header, max_header_bytes=65536)
            target = resolve_target(message.path, "/fhir")
        except GatewayError:
            return
        _check_target(message.path, "/fhir" + target.suffix)
        classify(message.method, target.path.rstrip("?"))
        query_names(target.query)
        if number == 0:
            _check_meaning(data, message, payload)


def _check_meaning(data: bytes, message: Any, payload: Any) -> None:
    """Check that the first accepted request is the one that the reference reads."""
    try:
        expected = reference.read_request(data)
    except reference.InvalidResponseError as bad:
        raise AssertionError(f"accepted what is not valid: {bad}") from bad
    assert message.method.encode() == expected.method
    assert message.path.encode("utf-8", "surrogateescape") == expected.target
    if payload.is_eof() and payload.exception() is None:
        assert expected.body is not None
        assert payload.read_nowait(-1) == expected.body


def _check_lines(lines: list[bytes]) -> None:
    """Check that no field is forwarded that identifies the caller or frames the message."""
    for line in lines:
        name = line.partition(b":")[0].lower().replace(b"_", b"-")
        assert name not in {
            *(b"authorization", b"cookie", b"connection", b"host", b"content-length"),
            *(b"transfer-encoding", b"upgrade", b"te", b"x-api-key", b"forwarded", b"expect"),
        }
        assert not name.startswith(b"x-forwarded-")
        assert line.endswith(b"\r\n")


def _check_target(raw: str, forwarded: str) -> None:
    """Check that the target is forwarded unchanged, but for slashes behind the base path.

    However it is decoded, it stays below the base path.
    """
    assert forwarded == re.sub(r"^/fhir//+", "/fhir/", raw)
    path = forwarded.partition("?")[0]
    for _ in range(4):
        assert "/../" not in f"{path}/"
        assert "\\" not in path
        assert "//" not in path
        path = unquote(path, errors="replace")


def via(data: bytes) -> None:
    """Check that parsing Via neither fails nor takes long, whatever it holds."""
    has_own_via(data)


def _run(work: Coroutine[Any, Any, None]) -> None:
    _LOOP.run_until_complete(work)


def _cut(stream: bytes, size: int) -> list[bytes]:
    return [stream[at : at + size] for at in range(0, len(stream), size)]


def _rewritten(media_type: str, direction: Any, pieces: list[bytes]) -> bytes:
    rewriter = rewriter_for(media_type, _LINKS, direction)
    return b"".join(map(rewriter.feed, pieces)) + rewriter.finish()


def _still_json(before: bytes, after: bytes) -> None:
    try:
        shape = _shape(json.loads(before, parse_float=str))
    except (ValueError, RecursionError):
        return
    assert _shape(json.loads(after, parse_float=str)) == shape, "no longer the same JSON"


def _shape(value: Any) -> Any:
    """Return a value with all strings but member names emptied."""
    if isinstance(value, dict):
        return {name: _shape(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return "" if isinstance(value, str) else value


def _still_xml(before: bytes, after: bytes) -> None:
    """Check that well-formed XML stays well-formed."""
    try:
        expat.ParserCreate().Parse(before, True)
    except (expat.ExpatError, ValueError, LookupError):
        return
    expat.ParserCreate().Parse(after, True)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "response": response,
    "rewriting": rewriting,
    "request": request,
    "fields": fields,
    "via": via,
}
