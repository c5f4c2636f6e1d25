"""How the end of a platform's answer is known, judged by its status and fields."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple


class Framing(Enum):
    """How the end of an answer's body is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class AnswerHead(NamedTuple):
    """Status line and header of an answer; `content_length` as announced, also for HEAD."""

    status: int
    headers: list[tuple[bytes, bytes]]
    framing: Framing
    content_length: int | None


class Ambiguous(Exception):  # noqa: N818 - a state, not a mistake
    """The fields can be understood in two ways."""


def frame(
    status: int, version: str, fields: Sequence[tuple[bytes, bytes]], *, expect_body: bool
) -> tuple[Framing, int | None]:
    """The framing and the announced length. Raises `Ambiguous`.

    llhttp let only one Content-Length pass, and only digits in it.
    """
    length: int | None = None
    coding: bytes | None = None
    types: set[bytes] = set()
    for name, value in fields:
        key = name.lower()
        if key == b"content-length":
            length = int(value)
        elif key == b"transfer-encoding":
            # A second line would be a second coding, which nobody here undoes.
            coding = value.strip().lower() if coding is None else b""
        elif key == b"content-type":
            types.add(value)
    if coding is not None and (coding != b"chunked" or version == "1.0" or length is not None):
        raise Ambiguous
    # Of two types the caller might believe the one that was not judged.
    if len(types) > 1:
        raise Ambiguous
    if not expect_body or status in (204, 304):
        return Framing.NONE, length
    if coding is not None:
        return Framing.CHUNKED, None
    return (Framing.LENGTH, length) if length is not None else (Framing.CLOSE, None)
