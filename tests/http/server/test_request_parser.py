"""What the gateway relies on in aiohttp's parser beyond aiohttp's own interface."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiohttp import http_parser

from gateway.config.inbound_settings import LimitsSettings
from gateway.http.server.request_parser import EMPTY_PAYLOAD, new_request_parser

PACKAGE = Path(__file__).parents[3] / "gateway"
READ = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"


class Connection:
    """What streams of the parser call."""

    connected = True

    def pause_reading(self) -> None:
        """Let the sender wait."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on."""


def parser() -> Any:
    """One with limits of its own."""
    limits = LimitsSettings(max_url_bytes=1000, max_header_bytes=1000, max_headers=10)
    return new_request_parser(Connection(), asyncio.get_running_loop(), limits)


async def test_a_message_without_a_body_has_that_very_object() -> None:
    """`EMPTY_PAYLOAD` tells messages without a body from those with one."""
    [(_, nothing)], _, _ = parser().feed_data(READ)
    [(_, body)], _, _ = parser().feed_data(UPLOAD)
    assert nothing is EMPTY_PAYLOAD
    assert body is not EMPTY_PAYLOAD
    assert (body.is_eof(), body.total_bytes, body.read_nowait(-1)) == (False, 2, b"ab")


async def test_a_pause_keeps_what_follows() -> None:
    """What comes after `pause_reading` in a body is not given to the body before it goes on."""
    reading = parser()
    [(_, body)], _, _ = reading.feed_data(UPLOAD)
    reading.pause_reading()
    reading.feed_data(b"c")
    assert not body.is_eof()


def test_it_is_the_parser_in_c() -> None:
    """The one in Python has other names."""
    assert http_parser.HttpRequestParser is not http_parser.HttpRequestParserPy


@pytest.mark.parametrize("folder", ["http", "pipeline"])
def test_only_one_module_knows_it(folder: str) -> None:
    """Only one module on the request path imports from aiohttp."""
    for path in (PACKAGE / folder).rglob("*.py"):
        if path.name == "request_parser.py":
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] != "aiohttp", path.name
            elif isinstance(node, ast.Import):
                assert all(each.name.partition(".")[0] != "aiohttp" for each in node.names)
