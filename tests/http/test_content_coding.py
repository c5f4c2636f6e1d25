"""A transform inside gzip: a truncated body never comes out as a complete one."""

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
        return chunk

    def finish(self) -> bytes:
        return b""


def recode(coded: bytes, size: int) -> bytes:
    transform = RecodingTransform("gzip", Unchanged())
    pieces = [transform.feed(coded[at : at + size]) for at in range(0, len(coded), size)]
    return b"".join(pieces) + transform.finish()


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_body_of_several_members_is_complete(size: int) -> None:
    """RFC 1952 section 2.2; in chunks of any size."""
    assert gzip.decompress(recode(MEMBERS, size)) == PLAIN * 2


def test_a_body_that_ends_inside_a_member_is_an_error() -> None:
    half = len(MEMBERS) // 2
    assert gzip.decompress(recode(MEMBERS[:half], 10)) == PLAIN
    for length in {*range(1, len(MEMBERS))} - {half}:
        with pytest.raises(ContentCodingError):
            recode(MEMBERS[:length], 10)


def test_an_empty_body_is_complete() -> None:
    assert recode(b"", 10) == b""


def test_octets_after_the_last_member_are_an_error() -> None:
    with pytest.raises(ContentCodingError):
        recode(MEMBERS + b"garbage", 1000)


class RecordingTransform(Unchanged):
    """Records how much it was fed at a time."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def feed(self, chunk: bytes) -> bytes:
        self.sizes.append(len(chunk))
        return chunk


@pytest.mark.parametrize("kind", [None, DecodingTransform, RecodingTransform])
def test_decoded_data_is_transformed_in_steps_of_bounded_size(
    kind: type[DecodingTransform] | None,
) -> None:
    plain = b"".join(b"%d," % number for number in range(500_000))
    inner = RecordingTransform()
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
def test_deflate_is_decoded_with_and_without_zlib_header(bits: int, size: int) -> None:
    """RFC 9110 defines the header; a truncated body is incomplete."""
    plain = b"a" * size
    packer = zlib.compressobj(9, zlib.DEFLATED, bits)
    coded = packer.compress(plain) + packer.flush()
    for step in (1, len(coded)):
        opening = DecodingTransform("deflate")
        pieces = [opening.feed(coded[at : at + step]) for at in range(0, len(coded), step)]
        assert b"".join(pieces) + opening.finish() == plain
    assert decode_body(coded[:-1], "deflate", size) == b""
    assert decode_body(coded + b"x", "deflate", size) == b""
