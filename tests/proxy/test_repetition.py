"""A connection that repeats its header: the bytes alone decide, however they are cut.

What comes byte by byte is all read by the parser; the same in pieces of whole requests is not.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiohttp import HttpVersion11
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.errors import GatewayError
from gateway.proxy.incoming import Answered, IncomingRequest, RequestMessage
from gateway.proxy.listener import CallerServer
from gateway.proxy.message_queue import ListenLimits
from gateway.proxy.repetition import Repetition
from tests.doubles.fed_connection import FakeTransport
from tests.doubles.wire import get, post

LIMITS = ListenLimits(url_bytes=200, header_bytes=400, headers=20, header_timeout=10)
READ = get("/fhir/Patient/1")
OTHER = get("/fhir/Patient/2")
LONG = get("/" + "x" * 250)
TAIL = b"Host: gateway\r\n\r\n"
CHUNKED = get("/fhir/Basic", "Transfer-Encoding: chunked", method="POST")

PIECES = (
    *(READ, OTHER, READ, OTHER, get("/fhir/Observation?code=a%7Cb&date=ge2026-01-01")),
    *(get("/fhir/Patient/1", "Accept: application/fhir+json"), get("/fhir", "Accept:")),
    *(get("/fhir/Patient/1", "Connection: close"), get("/fhir/Patient/1", version="1.0")),
    *(get("/fhir/Patient/1", method="HEAD"), get("/fhir/Patient/1", method="DELETE")),
    *(get("/fhir/Patient/1", "Upgrade: h2c", "Connection: Upgrade"), b"GET / HTTP/1.1\r\n\r\n"),
    *(get("/fhir/Patient/1", "Content-Length: 0"), get("/fhir/Patient/1", "Expect: 100-continue")),
    # Bodies that look like requests.
    *(post("/fhir/Basic", READ), post("/fhir/Basic", OTHER + READ), post("/fhir/Basic", b"{}")),
    *(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(READ), READ), CHUNKED + b"0\r\n\r\n"),
    # The beginnings of what other pieces end, and the other way round.
    *(CHUNKED, get("/fhir/Basic", f"Content-Length: {len(READ)}", method="POST")),
    *(b"GET /fhir/Patient/3 HTTP/1.1\r\nX-Note: ", b"GET /fhir/Patient/3 HTTP/1.1\r\n", TAIL),
    *(b"\r\n", b"%x\r\n" % len(READ), b"\r\n0\r\n\r\n", READ[:-1], READ[:-2], b"\n", READ[:20]),
    # Request lines that are not the usual one, with the usual fields behind.
    *(b"GET //fhir/Patient/1 HTTP/1.1\r\n" + TAIL, b"GET  /fhir HTTP/1.1\r\n" + TAIL),
    *(b"GET http://gateway/fhir HTTP/1.1\r\n" + TAIL, b"GET /fhir#x HTTP/1.1\r\n" + TAIL),
    *(b"GET /fhir/\xc3\xa4 HTTP/1.1\r\n" + TAIL, b"get /fhir HTTP/1.1\r\n" + TAIL),
    *(b'GET /fhir?x="<>" HTTP/1.1\r\n' + TAIL, b"GET * HTTP/1.1\r\n" + TAIL),
    *(b"GET /fhir HTTP/1.2\r\n" + TAIL, b"GET /fhir\r\n" + TAIL, b"\r\n" + READ),
    *(b"GET /fhir HTTP/1.1\nHost: gateway\r\n\r\n", LONG),
)


class Sink:
    """Notes what it is asked, bodies too."""

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []

    async def handle(self, request: IncomingRequest) -> Answered:
        """Answer nothing."""
        message, body = request.message, b""
        try:
            while request.has_body and (data := await request.payload.readany()):
                body += data
        except Exception:
            self.seen.append((message.method, message.path, message.raw_headers, "broken"))
            return Answered.ENDS
        facts = message.version, message.should_close, message.upgrade
        self.seen.append((message.method, message.path, message.raw_headers, *facts, body))
        return Answered.ENDS if message.should_close or message.upgrade else Answered.STAYS

    async def refuse(self, request: IncomingRequest, error: GatewayError) -> Answered:
        """Note that; the reason depends on how much of the message is there."""
        del request, error
        self.seen.append(("refused",))
        return Answered.ENDS


async def _turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def _read(pieces: list[bytes]) -> list[tuple[Any, ...]]:
    sink = Sink()
    server = CallerServer(sink, LIMITS)
    connection = server("192.0.2.1")
    connection.connection_made(FakeTransport())
    await _turns()
    for piece in pieces:
        connection.data_received(piece)
        await _turns()
    connection.connection_lost(None)
    await server.shutdown(0.0)
    return sink.seen


def read(pieces: list[bytes]) -> list[tuple[Any, ...]]:
    """What the handler is asked on a connection on which these pieces come."""
    return asyncio.run(_read(pieces))


def cut(pieces: list[bytes], places: list[int]) -> list[bytes]:
    """The same bytes, cut at some more places."""
    made = []
    for piece, place in zip(pieces, places, strict=True):
        at = place % (len(piece) + 1) if place else 0
        made += [each for each in (piece[:at], piece[at:]) if each]
    return made


@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).flatmap(
        lambda pieces: st.tuples(
            st.just(pieces),
            st.lists(
                st.one_of(st.just(0), st.just(0), st.integers(0, 500)),
                min_size=len(pieces),
                max_size=len(pieces),
            ),
        )
    )
)
@example(([READ, b"GET /fhir/Patient/3 HTTP/1.1\r\nX-Note: ", OTHER, READ], [0, 0, 0, 0]))
@example(([READ, get("/x", f"Content-Length: {len(OTHER)}", method="POST"), OTHER, READ], [0] * 4))
@example(([READ, CHUNKED, b"%x\r\n" % len(OTHER), OTHER, b"\r\n0\r\n\r\n", READ], [0] * 6))
@example(([READ, LONG, READ], [0] * 3))
@example(([READ, OTHER, READ, OTHER, READ, OTHER, READ, OTHER + READ + OTHER], [0] * 8))
def test_pieces_mean_what_their_bytes_mean(drawn: tuple[list[bytes], list[int]]) -> None:
    """Requests are the same in pieces as they are byte by byte; only what breaks ends earlier."""
    pieces, places = drawn
    whole = b"".join(pieces)
    expected = read([whole[at : at + 1] for at in range(len(whole))])
    found = read(cut(pieces, places))
    if expected and expected[-1][0] == "refused" and found[-1:] == expected[-1:]:
        # Of requests in one piece with a broken one some get no answer of their own.
        expected = [*expected[: len(found) - 1], expected[-1]]
    assert found == expected


@pytest.mark.parametrize("count", [2, 9, 40])
def test_any_number_of_reads(count: int) -> None:
    """Reads with the same header, then others in one piece with it: each is seen once."""
    targets = [f"/fhir/Patient/{number}" for number in range(count)]
    pieces = [get(target) for target in targets]
    last = get("/fhir/Patient/last", "X-Other: 1") + get("/fhir/Patient/end")
    found = [seen[1] for seen in read([*pieces, last, *pieces])]
    assert found == [*targets, "/fhir/Patient/last", "/fhir/Patient/end", *targets]


@pytest.mark.parametrize(
    ("field", "kept"),
    [
        *[("Accept: application/fhir+json", True), ("X-Site: 7", True)],
        *[("X-Api-Key: key-of-the-ward", False), ("authorization: Basic d2FyZA==", False)],
        *[("Cookie: session=1", False), ("Proxy-Authorization: Basic d2FyZA==", False)],
    ],
)
def test_no_secret_is_kept_to_be_compared(field: str, kept: bool) -> None:
    """A header with a credential in it is always parsed: time would tell how much was alike."""
    data = get("/fhir/Patient/1", field)
    raw = [line.partition(b": ")[::2] for line in data[:-4].split(b"\r\n")[1:]]
    message = RequestMessage(
        "GET", "/fhir/Patient/1", HttpVersion11, tuple(raw), should_close=False
    )
    repetition = Repetition(LIMITS.url_bytes)
    repetition.learn(data, message)
    assert (repetition.of(data) is not None) is kept
