"""What the gateway relies on in aiohttp's parser beyond aiohttp's public interface."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import http_parser, web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser

import gateway
from gateway.config.inbound_settings import LimitsSettings
from gateway.http.server.request_parser import (
    HttpProcessingError,
    InvalidURLError,
    LineTooLong,
    new_request_parser,
    require_strict_parser,
)

PACKAGE = Path(gateway.__file__).parent
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def parser() -> Any:
    limits = LimitsSettings(max_url_bytes=1000, max_header_bytes=1000, max_headers=10)
    return new_request_parser(
        BaseProtocol(asyncio.get_running_loop()), asyncio.get_running_loop(), limits
    )


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n"
# What is sent, and the words of the parser by which `request_checks` tells one cause from another.
REJECTED = {
    "HTTPS traffic": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "Expected HTTP/": b"GET /a b HTTP/1.1\r\n\r\n",
    "Expected CRLF": b"GET / HTTP/1.1\nHost: a\r\n\r\n",
    "after header value": HEAD[:-2] + b"\n\r\n",
    "Missing 'Host'": b"GET / HTTP/1.1\r\n\r\n",
    "Duplicate 'Host'": HEAD + b"Host: b\r\n\r\n",
    "Duplicate Content-Length": HEAD + 2 * b"Content-Length: 1\r\n" + b"\r\n",
    "can't be present with": HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    "in Content-Length": HEAD + b"Content-Length: x\r\n\r\n",
    "Invalid header token": HEAD + b"X Y: z\r\n\r\n",
    "Invalid header value": HEAD + b"X: a\x01b\r\n\r\n",
    "whitespace after header value": HEAD + b"X: a\r\n b\r\n\r\n",
    "chunk": CHUNKED + b"zz\r\n",
    "Pause on PRI": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "Invalid method": b"FOO / HTTP/1.1\r\n\r\n",
    "Too many headers": HEAD + 10 * b"X: y\r\n" + b"\r\n",
}


@pytest.mark.parametrize("words", REJECTED)
async def test_an_error_names_its_cause(words: str) -> None:
    """The words come before the quotation of the message, in every `HttpProcessingError`."""
    with pytest.raises(HttpProcessingError) as raised:
        parser().feed_data(REJECTED[words])
    assert words in str(raised.value).partition(":\n\n")[0]


@pytest.mark.parametrize(
    ("sent", "begins"),
    [(b"GET /%s HTTP/1.1\r\n" % (1001 * b"x"), b"/x"), (HEAD + b"X: %s\r\n" % (1001 * b"y"), b"y")],
)
async def test_an_overlong_line_comes_with_its_beginning(sent: bytes, begins: bytes) -> None:
    """`LineTooLong` has it as its first argument: that of a target is a slash."""
    with pytest.raises(LineTooLong) as raised:
        parser().feed_data(sent)
    assert raised.value.args[0].startswith(begins)


@pytest.mark.parametrize(
    ("target", "quoted"), [(b"a/b", "a/b"), (b"/\xe9", "Invalid char in url path")]
)
async def test_a_bad_target_has_an_error_of_its_own(target: bytes, quoted: str) -> None:
    """`InvalidURLError` says which part has octets that must be escaped."""
    with pytest.raises(InvalidURLError, match=quoted):
        parser().feed_data(b"GET %s HTTP/1.1\r\nHost: a\r\n\r\n" % target)


def test_it_is_the_parser_in_c() -> None:
    """The one in Python has other names, and is rejected at the start."""
    require_strict_parser()
    assert HttpRequestParser is not http_parser.HttpRequestParserPy


# What aiohttp promises: what these export, and constants for names of fields and methods.
PROMISED = {*aiohttp.__all__, *web.__all__, "aiohttp", "hdrs", "web"}
PARSER_MODULE = PACKAGE / "http" / "server" / "request_parser.py"


def imported_from_aiohttp(path: Path) -> set[str]:
    """Return the names that a module imports from aiohttp or one of its modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aiohttp":
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.Import):
            names |= {each.name for each in node.names if each.name.split(".")[0] == "aiohttp"}
    return names


def test_only_one_module_imports_what_aiohttp_does_not_promise() -> None:
    """A new name there needs a test here."""
    found = {
        path: unpromised
        for path in sorted(PACKAGE.rglob("*.py"))
        if (unpromised := imported_from_aiohttp(path) - PROMISED)
    }
    parser_names = {"HttpProcessingError", "HttpRequestParser", "InvalidURLError", "LineTooLong"}
    assert found == {PARSER_MODULE: parser_names}


@pytest.mark.parametrize("folder", ["http", "pipeline"])
def test_only_one_module_on_the_request_path_imports_from_aiohttp(folder: str) -> None:
    """Everything else there is the gateway's own."""
    modules = {*(PACKAGE / folder).rglob("*.py")}
    assert modules
    assert [path for path in modules - {PARSER_MODULE} if imported_from_aiohttp(path)] == []
