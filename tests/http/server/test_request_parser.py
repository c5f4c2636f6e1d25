"""What the gateway relies on in aiohttp's parser beyond aiohttp's public interface."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import http_parser, web
from aiohttp.http import HttpRequestParser

import gateway
from gateway.config.inbound_settings import LimitsSettings
from gateway.http.server.request_parser import (
    EMPTY_PAYLOAD,
    HttpProcessingError,
    HttpVersion,
    HttpVersion10,
    HttpVersion11,
    InvalidURLError,
    LineTooLong,
    new_request_parser,
    require_strict_parser,
)

PACKAGE = Path(gateway.__file__).parent
READ = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
MIB = 2**20


class Connection:
    """What body streams of the parser call."""

    connected = True

    def __init__(self) -> None:
        self.calls: list[str] = []

    def pause_reading(self) -> None:
        """Record the pause."""
        self.calls.append("pause")

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Record the resumption."""
        self.calls.append("resume")


def parser(connection: Connection | None = None) -> Any:
    """Return a parser with other limits."""
    limits = LimitsSettings(max_url_bytes=1000, max_header_bytes=1000, max_headers=10)
    return new_request_parser(connection or Connection(), asyncio.get_running_loop(), limits)


async def test_a_message_without_a_body_has_empty_payload() -> None:
    [(_, nothing)], _, _ = parser().feed_data(READ)
    [(_, body)], _, _ = parser().feed_data(UPLOAD)
    assert nothing is EMPTY_PAYLOAD
    assert body is not EMPTY_PAYLOAD
    assert (body.is_eof(), body.total_bytes, body.read_nowait(-1)) == (False, 2, b"ab")


async def test_a_paused_body_gets_no_more_data() -> None:
    reading = parser()
    [(_, body)], _, _ = reading.feed_data(UPLOAD)
    reading.pause_reading()
    reading.feed_data(b"c")
    assert not body.is_eof()


async def test_a_message_has_the_octets_that_were_sent() -> None:
    """`raw_headers` keeps order, repetition, case and octets; method and target are unchanged."""
    fields = b"Host: a\r\nx-NAME: Jos\xe9\r\nB: 1\r\nx-name:  2 \r\n"
    sent = b"PUT /a//%2e%2E/?b=%zz#c HTTP/1.1\r\n" + fields + b"\r\n"
    [(message, _)], switched, _ = parser().feed_data(sent)
    assert (message.method, message.path) == ("PUT", "/a//%2e%2E/?b=%zz#c")
    expected = [(b"Host", b"a"), (b"x-NAME", b"Jos\xe9"), (b"B", b"1"), (b"x-name", b"2")]
    assert list(message.raw_headers) == expected
    assert (message.should_close, message.upgrade, switched) == (False, False, False)


@pytest.mark.parametrize(
    ("line", "version", "closes"),
    [
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", HttpVersion11, False),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", HttpVersion11, True),
        (b"GET / HTTP/1.0\r\n\r\n", HttpVersion10, True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", HttpVersion10, False),
    ],
)
async def test_a_message_has_one_of_two_version_objects(
    line: bytes, version: HttpVersion, closes: bool
) -> None:
    """`HttpVersion10` and `HttpVersion11` are the objects themselves, and `should_close` is set."""
    [(message, _)], _, _ = parser().feed_data(line)
    assert message.version is version
    assert message.should_close is closes
    assert HttpVersion10 < HttpVersion11


@pytest.mark.parametrize("line", [b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", b"GET /\r\n\r\n"])
async def test_other_versions_are_messages_too(line: bytes) -> None:
    """The gateway has to reject them itself."""
    [(message, _)], _, _ = parser().feed_data(line)
    assert message.version not in (HttpVersion10, HttpVersion11)


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
async def test_a_declined_upgrade_continues_in_http(first: bytes) -> None:
    """The second value of `feed_data` reports it; `set_upgraded(False)` declines it."""
    reading = parser()
    [(message, _)], switched, _ = reading.feed_data(first)
    assert message.upgrade
    assert switched
    reading.set_upgraded(False)
    [(message, _)], switched, _ = reading.feed_data(READ)
    assert (message.method, switched) == ("GET", False)


async def test_octets_after_a_second_upgrade_are_dropped() -> None:
    """Therefore the connection feeds it such a request alone."""
    upgrade = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    reading = parser()
    messages, switched, rest = reading.feed_data(upgrade + READ)
    assert (len(messages), switched, rest) == (1, False, b"")
    assert messages[0][0].upgrade
    assert len(reading.feed_data(READ)[0]) == 1


async def test_the_largest_length_is_announced_as_no_body() -> None:
    """It gives the object for no body, and then waits for that body."""
    reading = parser()
    sent = UPLOAD.replace(b"Content-Length: 3", b"Content-Length: %d" % (2**64 - 1))
    [(_, body)], _, _ = reading.feed_data(sent)
    assert body is EMPTY_PAYLOAD
    assert not reading.feed_data(READ)[0]


async def test_a_body_pauses_and_resumes_its_reader() -> None:
    """It calls `pause_reading` when much is buffered, and `resume_reading` when it was read."""
    connection = Connection()
    reading = parser(connection=connection)
    [(_, body)], _, _ = reading.feed_data(CHUNKED + b"%x\r\n%s\r\n" % (MIB, MIB * b"x"))
    assert "pause" in connection.calls
    while connection.calls[-1] != "resume":
        assert await body.readany()


async def test_a_body_is_complete_after_its_last_chunk() -> None:
    """`readany` waits for octets, `is_eof` says that the last one has arrived."""
    reading = parser()
    [(_, body)], _, _ = reading.feed_data(CHUNKED)
    waiting = asyncio.ensure_future(body.readany())
    await asyncio.sleep(0)
    assert not waiting.done()
    reading.feed_data(b"1\r\na\r\n0\r\nX-Trailer: b\r\n\r\n")
    assert await waiting == b"a"
    assert body.is_eof()
    assert await body.readany() == b""


async def test_a_body_is_failed_from_outside() -> None:
    """`set_exception` reaches the reader that waits and those that read later."""
    [(_, body)], _, _ = parser().feed_data(CHUNKED)
    assert body.exception() is None
    waiting = asyncio.ensure_future(body.readany())
    await asyncio.sleep(0)
    body.set_exception(ConnectionResetError())
    for read in (waiting, body.readany()):
        with pytest.raises(ConnectionResetError):
            await read
    assert isinstance(body.exception(), ConnectionResetError)


async def test_an_error_within_a_body_is_not_set_on_it() -> None:
    """Therefore the connection does it."""
    reading = parser()
    [(_, body)], _, _ = reading.feed_data(CHUNKED)
    with pytest.raises(HttpProcessingError, match="chunk"):
        reading.feed_data(b"zz\r\n")
    assert (body.exception(), body.is_eof()) == (None, False)


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
    [
        (b"GET /%s HTTP/1.1\r\n" % (1001 * b"x"), b"/x"),
        (HEAD + b"X: %s\r\n" % (1001 * b"y"), b"y"),
    ],
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
    for path in (PACKAGE / folder).rglob("*.py"):
        assert path == PARSER_MODULE or not imported_from_aiohttp(path), path
