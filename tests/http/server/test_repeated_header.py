"""A connection that repeats its header: only octets decide, however they are split.

Octets that arrive one by one are all parsed; whole requests with the same header are not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.config.inbound_settings import LimitsSettings
from gateway.errors import GatewayError
from gateway.http.server.caller_connection import IncomingRequest
from gateway.http.server.listener import CallerServer
from gateway.http.server.request_parser import ConnectionDisposition, RepeatedMessage
from tests.doubles.fed_connection import FakeTransport
from tests.doubles.wire import get, post

LIMITS = LimitsSettings(max_url_bytes=200, max_header_bytes=400, max_headers=20)
READ = get("/fhir/Patient/1")
OTHER = get("/fhir/Patient/2")
LONG = get("/" + "x" * 250)
TAIL = b"Host: gateway\r\n\r\n"
CHUNKED = get("/fhir/Basic", "Transfer-Encoding: chunked", method="POST")

PIECES_OF_A_HEADER = (b"GET /fhir/Patient/3 HTTP/1.1\r\nX-Note: ", b"GET /fhir HTTP/1.1\r\n")
AWAITING = get("/fhir/Basic", f"Content-Length: {len(OTHER)}", method="POST")
SIZE, LAST_CHUNK = b"%x\r\n" % len(OTHER), b"\r\n0\r\n\r\n"
# A body that no caller can send; the parser waits for it although it reports none.
ENDLESS = get("/fhir/Basic", f"Content-Length: {2**64 - 1}", method="POST")
SIX = b"".join(get(f"/fhir/Patient/{number}") for number in range(6))
UPGRADE = ("Upgrade: h2c", "Connection: Upgrade")
KEYED = get("/fhir/Patient/1", "X-User: alice")

PIECES = (
    *(READ, OTHER, READ, OTHER, get("/fhir/Observation?code=a%7Cb&date=ge2026-01-01")),
    *(get("/fhir/Patient/1", "Accept: application/fhir+json"), get("/fhir", "Accept:")),
    *(get("/fhir/Patient/1", "Connection: close"), get("/fhir/Patient/1", version="1.0")),
    *(get("/fhir/Patient/1", method="HEAD"), get("/fhir/Patient/1", method="DELETE")),
    *(get("/fhir/Patient/1", *UPGRADE), b"GET / HTTP/1.1\r\n\r\n"),
    *(post("/fhir/Basic", READ, *UPGRADE), post("/fhir/Basic", b"{}", *UPGRADE)),
    get("/fhir/Basic", "Transfer-Encoding: chunked", *UPGRADE, method="POST") + b"0\r\n\r\n",
    *(get("/fhir/Patient/1", "Content-Length: 0"), get("/fhir/Patient/1", "Expect: 100-continue")),
    *(ENDLESS, SIX, KEYED, SIX + KEYED),
    # Bodies that look like requests.
    *(post("/fhir/Basic", READ), post("/fhir/Basic", OTHER + READ), post("/fhir/Basic", b"{}")),
    *(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(READ), READ), CHUNKED + b"0\r\n\r\n"),
    *(post("/fhir/Basic/1", b"{}"), post("/fhir/Basic", READ + OTHER), post("/fhir", b"x" * 120)),
    *(post("/fhir/Basic/1", b"{}", method="PUT"), post("/fhir/Basic", b"{}") + READ),
    *(post("/fhir/Basic", b""), post("/fhir/Basic", b"{}") * 2, post("/fhir", b"{}", "Expect: x")),
    # The beginnings of what other pieces end, and the other way round.
    *(CHUNKED, AWAITING, SIZE, LAST_CHUNK, TAIL, *PIECES_OF_A_HEADER),
    *(b"\r\n", READ[:-1], READ[:-2], b"\n", READ[:20]),
    # Other request lines, followed by the same fields.
    *(b"GET //fhir/Patient/1 HTTP/1.1\r\n" + TAIL, b"GET  /fhir HTTP/1.1\r\n" + TAIL),
    *(b"GET http://gateway/fhir HTTP/1.1\r\n" + TAIL, b"GET /fhir#x HTTP/1.1\r\n" + TAIL),
    *(b"GET /fhir/\xc3\xa4 HTTP/1.1\r\n" + TAIL, b"get /fhir HTTP/1.1\r\n" + TAIL),
    *(b'GET /fhir?x="<>" HTTP/1.1\r\n' + TAIL, b"GET * HTTP/1.1\r\n" + TAIL),
    *(b"GET /fhir HTTP/1.2\r\n" + TAIL, b"GET /fhir\r\n" + TAIL, b"\r\n" + READ),
    *(b"GET /fhir HTTP/1.1\nHost: gateway\r\n\r\n", LONG),
)


class Sink:
    """Records what it is asked, bodies too; `slow`: with pauses.

    `repeated` says of each request whether it was not parsed.
    """

    def __init__(self, *, slow: bool) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.repeated: list[bool] = []
        self._slow = slow

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Send no response."""
        message, body = request.message, b""
        self.repeated.append(isinstance(message, RepeatedMessage))
        try:
            for _ in range(25 * self._slow):
                await asyncio.sleep(0)
            while request.has_body and (data := await request.payload.readany()):
                body += data
        except Exception:
            self.seen.append((message.method, message.path, message.raw_headers, "broken"))
            return ConnectionDisposition.CLOSE
        facts = message.version, message.should_close
        self.seen.append((message.method, message.path, message.raw_headers, *facts, body))
        return (
            ConnectionDisposition.CLOSE
            if message.should_close
            else ConnectionDisposition.KEEP_ALIVE
        )

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        del request, error
        self.seen.append(("refused",))
        return ConnectionDisposition.CLOSE


async def _turns() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def _until(done: Callable[[], bool]) -> None:
    for _ in range(400):
        if done():
            break
        await asyncio.sleep(0)


async def _read(pieces: list[bytes], sink: Sink) -> None:
    server = CallerServer(sink, LIMITS)
    connection = server.make_connection("192.0.2.1")
    transport = FakeTransport()
    connection.connection_made(transport)
    await _turns()
    for piece in pieces:
        connection.data_received(piece)
        await _turns()
        await _until(lambda: not transport.paused)
    # A body may be awaited in vain.
    await _until(lambda: not (connection.busy or connection.has_pipelined_requests))
    connection.connection_lost(None)
    await server.shutdown(0.0)


def read(pieces: list[bytes], *, slow: bool = False) -> list[tuple[Any, ...]]:
    sink = Sink(slow=slow)
    asyncio.run(_read(pieces, sink))
    return sink.seen


def not_parsed(pieces: list[bytes]) -> list[bool]:
    sink = Sink(slow=False)
    asyncio.run(_read(pieces, sink))
    return sink.repeated


def split_more(pieces: list[bytes], places: list[int]) -> list[bytes]:
    """Return the same octets, split at some more places."""
    made = []
    for piece, place in zip(pieces, places, strict=True):
        at = place % (len(piece) + 1) if place else 0
        made += [each for each in (piece[:at], piece[at:]) if each]
    return made


PIECES_AND_CUTS = st.lists(
    st.tuples(st.sampled_from(PIECES), st.one_of(st.just(0), st.just(0), st.integers(0, 500))),
    min_size=1,
    max_size=7,
)


@given(PIECES_AND_CUTS, st.booleans())
@example([(piece, 0) for piece in (READ, PIECES_OF_A_HEADER[0], OTHER, READ)], False)
@example([(piece, 0) for piece in (READ, AWAITING, OTHER, READ)], False)
@example([(piece, 0) for piece in (READ, CHUNKED, SIZE, OTHER, LAST_CHUNK, READ)], False)
@example([(READ, 0), (ENDLESS, 10), (OTHER, 0), (READ, 0)], False)
@example([(READ, 0), (LONG, 0), (READ, 0)], False)
@example([(READ, 0), (SIX, 0), (OTHER, 0), (READ, 0), (SIX + KEYED, 0), (KEYED, 0)], True)
def test_requests_mean_the_same_in_any_chunks(drawn: list[tuple[bytes, int]], slow: bool) -> None:
    """Only an error ends earlier."""
    pieces, places = [piece for piece, _ in drawn], [place for _, place in drawn]
    whole = b"".join(pieces)
    expected = read([whole[at : at + 1] for at in range(len(whole))])
    found = read(split_more(pieces, places), slow=slow)
    if expected and expected[-1][0] == "refused" and found[-1:] == expected[-1:]:
        # Some requests in one chunk with an invalid one get no response of their own.
        expected = [*expected[: len(found) - 1], expected[-1]]
    assert found == expected


@pytest.mark.parametrize("count", [2, 9, 40])
def test_pipelined_reads_with_the_same_header_are_received_once(count: int) -> None:
    targets = [f"/fhir/Patient/{number}" for number in range(count)]
    pieces = [get(target) for target in targets]
    last = get("/fhir/Patient/last", "X-Other: 1") + get("/fhir/Patient/end")
    found = [received[1] for received in read([*pieces, last, *pieces])]
    assert found == [*targets, "/fhir/Patient/last", "/fhir/Patient/end", *targets]


def test_a_read_with_the_same_fields_is_not_parsed() -> None:
    """Whatever its target."""
    other = get("/fhir/Patient/1", "Accept: application/fhir+xml")
    pieces = [READ, OTHER, READ, other, other, READ, post("/fhir/Basic", b"{}"), READ, READ]
    told = [False, True, True, False, True, False, False, False, True]
    assert not_parsed(pieces) == told


def test_a_write_with_the_same_fields_is_not_parsed() -> None:
    """Whatever its target and the length of its body, if that came with the header."""
    bodies = (b"{}", b'{"a":1}', b"x" * 100, READ, READ)
    pieces = [post(f"/fhir/Basic/{len(body)}", body) for body in bodies]
    assert not_parsed(pieces) == [False, True, True, True, True]
    assert [received[-1] for received in read(pieces)] == list(bodies)
    first, other = pieces[0], post("/fhir/Basic", b"{}", method="PUT")
    assert not_parsed([first, first[:-1], first[-1:], first, other, other, READ, first]) == [
        *(False, False, True, False, True, False, False),
    ]


def test_the_length_of_a_write_that_is_not_parsed_is_its_own() -> None:
    pieces = [post("/fhir/Basic", b"x" * size) for size in (2, 3, 2)]
    lengths = [dict(received[2])[b"Content-Length"] for received in read(pieces)]
    assert lengths == [b"2", b"3", b"2"]
    zeros = pieces[0].replace(b"Content-Length: 2", b"Content-Length: 02")
    assert not_parsed([pieces[0], zeros, pieces[0]]) == [False, False, False]


@pytest.mark.parametrize(
    "field",
    [
        *("X-Api-Key: key-of-the-ward", "authorization: Basic d2FyZA==", "Cookie: session=1"),
        *("Proxy-Authorization: Basic d2FyZA==", "Content-Length: 0", "Expect: 100-continue"),
    ],
)
def test_a_header_with_a_credential_is_always_parsed(field: str) -> None:
    """The time of a comparison would reveal it."""
    assert not any(not_parsed([get("/fhir/Patient/1", field)] * 3))
    if not field.startswith("Content-Length"):
        assert not any(not_parsed([post("/fhir/Basic", b"{}", field)] * 3))
