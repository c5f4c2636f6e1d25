"""A transform inside gzip: nothing cut ever comes out as whole."""

from __future__ import annotations

import gzip
import zlib

import pytest

from gateway.http.content_coding import (
    STEP_BYTES,
    ContentCodingError,
    DecodingTransform,
    RecodingTransform,
    decode_body,
    feed_in_steps,
)

PLAIN = b'{"resourceType":"Patient"}' * 3
MEMBERS = gzip.compress(PLAIN) + gzip.compress(PLAIN)


class Unchanged:
    """A transform that changes nothing."""

    def feed(self, chunk: bytes) -> bytes:
        """The same."""
        return chunk

    def finish(self) -> bytes:
        """Nothing."""
        return b""


def recode(coded: bytes, size: int) -> bytes:
    """Pass a body through in pieces."""
    transform = RecodingTransform("gzip", Unchanged())
    pieces = [transform.feed(coded[at : at + size]) for at in range(0, len(coded), size)]
    return b"".join(pieces) + transform.finish()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_members_follow_each_other(size: int) -> None:
    """A body of several members (RFC 1952 section 2.2) comes out whole, in any pieces."""
    assert gzip.decompress(recode(MEMBERS, size)) == PLAIN * 2


def test_cut_anywhere_is_broken() -> None:
    """A body that ends inside a member is broken; one that ends with a member is whole."""
    half = len(MEMBERS) // 2
    assert gzip.decompress(recode(MEMBERS[:half], 10)) == PLAIN
    for length in {*range(1, len(MEMBERS))} - {half}:
        with pytest.raises(ContentCodingError):
            recode(MEMBERS[:length], 10)


def test_empty_body_is_whole() -> None:
    """A body of no bytes has nothing to unpack."""
    assert recode(b"", 10) == b""


def test_bytes_after_the_last_member_are_broken() -> None:
    """Garbage behind the last member is not swallowed."""
    with pytest.raises(ContentCodingError):
        recode(MEMBERS + b"garbage", 1000)


class Noting(Unchanged):
    """Remembers how much it was fed at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def feed(self, chunk: bytes) -> bytes:
        """The same."""
        self.sizes.append(len(chunk))
        return chunk


@pytest.mark.parametrize("kind", [None, DecodingTransform, RecodingTransform])
def test_no_step_is_longer_than_allowed(kind: type[DecodingTransform] | None) -> None:
    """However much a chunk unpacks to, it is changed in steps of bounded size, in order."""
    plain = b"".join(b"%d," % number for number in range(500_000))
    inner = Noting()
    transform = inner if kind is None else kind("gzip", inner)
    passing = feed_in_steps(transform, plain if kind is None else gzip.compress(plain))
    taken = [next(passing) for _ in range(3)]
    assert len(inner.sizes) <= 3
    out = b"".join((*taken, *passing)) + transform.finish()
    assert (gzip.decompress(out) if kind is RecodingTransform else out) == plain
    assert max(inner.sizes) <= STEP_BYTES
    assert sum(inner.sizes) == len(plain)


@pytest.mark.parametrize(
    "size", [0, 1, 258, STEP_BYTES - 1, STEP_BYTES, STEP_BYTES + 1, 5 * STEP_BYTES + 258]
)
@pytest.mark.parametrize("bits", [zlib.MAX_WBITS, -zlib.MAX_WBITS])
def test_deflate_is_opened_in_both_its_forms(bits: int, size: int) -> None:
    """With zlib's header as RFC 9110 wants it, and bare, in any pieces; a cut one is not whole."""
    plain = b"a" * size
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    coded = packer.compress(plain) + packer.flush()
    for step in (1, len(coded)):
        opening = DecodingTransform("deflate")
        pieces = [opening.feed(coded[at : at + step]) for at in range(0, len(coded), step)]
        assert b"".join(pieces) + opening.finish() == plain
    assert decode_body(coded[:-1], "deflate", size) == b""
    assert decode_body(coded + b"x", "deflate", size) == b""
