"""`UpstreamConnection` on any octets in any chunks, compared with an independent parser.

The reference is slow and strict: it reads the whole stream at once, as RFC 9112 defines it. The
connection gets the same octets in chunks, without a socket.
"""

from __future__ import annotations

import asyncio
import itertools
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.doubles.fed_connection import End, exchange, judge


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    """Yield one loop for all examples."""
    with asyncio.Runner() as one:
        yield one


# Streams.

_REASON = st.sampled_from([b"", b" ", b" OK", b" Not \xc3\xa9 Found"])
_FIELDS = st.sampled_from(
    [
        b"Content-Type: application/fhir+json\r\n",
        b'ETag: W/"3"\r\n',
        b"X-Empty:\r\n",
        b"X-Spaced: \t a b \t\r\n",
        b"X-Latin: caf\xe9\r\n",
        b"Connection: keep-alive\r\n",
        b"Connection: close\r\n",
        b"Date: Mon, 01 Jan 2024 00:00:00 GMT\r\n",
    ]
)
_BODY = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n", b"\r\n\r\n", b'{"a":1}']),
)
_INTERIM = st.sampled_from(
    [
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n",
        b"HTTP/1.1 102 Processing\r\nContent-Length: 5\r\n\r\n",
    ]
)


@dataclass(frozen=True)
class Valid:
    """A valid response and its meaning."""

    stream: bytes
    head: bool
    end: End
    expected: tuple[int, bytes]
    reusable: bool


@st.composite
def valid_responses(draw: st.DrawFn) -> Valid:
    """Return a strategy of responses of any framing, after any interim responses."""
    head = draw(st.booleans())
    status = draw(st.sampled_from([200, 201, 204, 304, 400, 404, 422, 500, 503, 599]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.0"]))
    framing = draw(st.sampled_from(["length", "close"] + ["chunked"] * (version == b"1.1")))
    body = draw(_BODY)
    fields = draw(st.lists(_FIELDS, max_size=4))
    bodiless = head or status in (204, 304)
    if framing == "length":
        fields.append(b"Content-Length: %d\r\n" % len(body))
    elif framing == "chunked":
        fields.append(b"Transfer-Encoding: chunked\r\n")
    fields = draw(st.permutations(fields))
    stream = b"".join(draw(st.lists(_INTERIM, max_size=3)))
    stream += b"HTTP/%s %d%s\r\n%s\r\n" % (version, status, draw(_REASON), b"".join(fields))
    if not bodiless:
        stream += draw(chunks(body)) if framing == "chunked" else body
    by_close = framing == "close" and not bodiless
    end: End = "eof" if by_close else draw(st.sampled_from(["open", "eof", "reset"]))
    connection = [field for field in fields if field.startswith(b"Connection: ")]
    kept = connection == [b"Connection: keep-alive\r\n"] or (not connection and version == b"1.1")
    # The connection is not reused when it is unknown whether a body follows the response.
    must_keep = kept and framing != "close" and not bodiless
    return Valid(stream, head, end, (status, b"" if bodiless else body), must_keep)


@st.composite
def chunks(draw: st.DrawFn, body: bytes) -> bytes:
    """Return a body in chunks of any sizes, with some extensions and trailers."""
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
    edges = [0, *cuts, len(body)]
    coded = b""
    for start, stop in itertools.pairwise(edges):
        if stop > start:
            size = b"%x" % (stop - start)
            if draw(st.booleans()):
                size = b"00" + size.upper()
            extension = draw(st.sampled_from([b"", b"", b";a=b", b';q="x y"']))
            coded += size + extension + b"\r\n" + body[start:stop] + b"\r\n"
    trailers = draw(st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"A: b\r\nC:\r\n"]))
    return coded + b"0\r\n" + trailers + b"\r\n"


@st.composite
def splits_of(draw: st.DrawFn, stream: bytes) -> list[bytes]:
    """Return the stream split anywhere, sometimes at every octet."""
    if draw(st.integers(0, 7)) == 0:
        return [stream[at : at + 1] for at in range(len(stream))]
    cuts = sorted(draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=6)))
    edges = [0, *(cut for cut in cuts if cut < len(stream)), len(stream)]
    return [stream[start:stop] for start, stop in itertools.pairwise(edges)]


_WORDS = st.sampled_from(
    [
        *(
            b"\r\n",
            b"\r",
            b"\n",
            b"\0",
            b" ",
            b"\t",
            b":",
            b";",
            b",",
            b"0\r\n\r\n",
            b"5\r\nhello\r\n",
        ),
        *(
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.0 200 OK\r\n",
            b"HTTP/2.0 200\r\n",
            b"HTTP/1.1 101 S\r\n",
        ),
        *(
            b"HTTP/1.1 999 \r\n",
            b"HTTP/1.1 204 N\r\n",
            b"HTTP/1.1 100 C\r\n\r\n",
            b"HTTP/1.1 2000 \r\n",
        ),
        *(b"Content-Length: 5\r\n", b"Content-Length: 3\r\n", b"Content-Length: +5\r\n"),
        *(b"Content-Length: 5, 5\r\n", b"Content-Length: 99999999999999999999\r\n"),
        *(b"Content-Length : 5\r\n", b"Content-Length:\r\n", b" Content-Length: 5\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n"),
        *(b"Transfer-Encoding: gzip, chunked\r\n", b"Transfer-Encoding: xchunked\r\n"),
        *(b"Transfer-Encoding: chunked, identity\r\n", b"Transfer-Encoding:\x0bchunked\r\n"),
        *(b"transfer-encoding:\r\n chunked\r\n", b"Connection: upgrade\r\n", b"Upgrade: h2c\r\n"),
        *(
            b"Connection: close\r\n",
            b"X: 1\r\n folded\r\n",
            b"X\r\n",
            b"0x5\r\n",
            b"-1\r\n",
            b"5 \r\n",
        ),
        *(b"FFFFFFFFFFFFFFFFF\r\n", b"ff;", b"hello", b"{}"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn) -> tuple[bytes, bool]:
    """Return a valid response with a few changes."""
    valid = draw(valid_responses())
    stream = valid.stream
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(stream)))
        until = min(len(stream), at + draw(st.integers(0, 6)))
        change = draw(st.sampled_from(["insert", "replace", "delete", "repeat", "cut"]))
        if change == "cut":
            stream = stream[:at]
        elif change == "repeat":
            stream = stream[:until] + stream[at:]
        else:
            until = at if change == "insert" else until
            new = b"" if change == "delete" else draw(st.one_of(_WORDS, st.binary(max_size=3)))
            stream = stream[:at] + new + stream[until:]
    return stream, valid.head


_ENDS: st.SearchStrategy[End] = st.sampled_from(["eof", "reset", "open"])


@given(st.data(), valid_responses())
def test_a_valid_response_means_the_same_in_any_chunks(
    runner: asyncio.Runner, data: st.DataObject, valid: Valid
) -> None:
    """Read early or late."""
    pieces = data.draw(splits_of(valid.stream))
    prompt = data.draw(st.booleans())
    received = runner.run(exchange(pieces, valid.end, head=valid.head, prompt=prompt))
    assert received.result == valid.expected
    whole = runner.run(exchange([valid.stream], valid.end, head=valid.head))
    assert received == whole
    assert received.reusable or not valid.reusable


@given(st.data(), mutated(), _ENDS)
def test_a_mutated_response_fails_or_means_what_it_says(
    runner: asyncio.Runner, data: st.DataObject, mutant: tuple[bytes, bool], end: End
) -> None:
    """Nothing is raised, and nothing hangs."""
    stream, head = mutant
    runner.run(judge(stream, data.draw(splits_of(stream)), end, head=head))


@given(st.data(), valid_responses(), st.binary(min_size=1, max_size=20))
def test_octets_after_a_response_end_the_connection(
    runner: asyncio.Runner, data: st.DataObject, valid: Valid, more: bytes
) -> None:
    if valid.end == "eof" and not valid.reusable:
        return
    stream = valid.stream + more
    pieces = data.draw(splits_of(stream))
    received = runner.run(exchange(pieces, "open", head=valid.head))
    assert received.result == valid.expected
    assert not received.reusable or more.strip(b"\r\n") == b""


@pytest.mark.parametrize("line", [b"X-%d: 1\r\n", b"Link: <%d>\r\n"])
def test_fields_beyond_the_limit_take_no_memory(runner: asyncio.Runner, line: bytes) -> None:
    fields = b"".join(line % number for number in range(200_000 // len(line)))
    stream = b"HTTP/1.1 200 OK\r\n" + 2 * fields
    tracemalloc.start()
    try:
        received = runner.run(exchange([stream], "open"))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(received.result, str)
    assert peak < 1_000_000
