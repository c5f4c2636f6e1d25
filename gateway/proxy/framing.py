"""How the end of a platform's answer is known, judged by its status and fields."""

from __future__ import annotations

from enum import Enum

from gateway.proxy.answer_header import AnswerFields


class Framing(Enum):
    """How the end of an answer's body is known (RFC 9112 section 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


class AnswerHead:
    """Status line and header of an answer; `content_length` as announced, also for HEAD."""

    __slots__ = ("content_length", "fields", "framing", "status")

    def __init__(
        self, status: int, fields: AnswerFields, framing: Framing, content_length: int | None
    ) -> None:
        self.status = status
        self.fields = fields
        self.framing = framing
        self.content_length = content_length


class Ambiguous(Exception):  # noqa: N818 - a state, not a mistake
    """The fields can be understood in two ways."""


def frame(
    status: int, version: str, fields: AnswerFields, *, expect_body: bool
) -> tuple[Framing, int | None]:
    """The framing and the announced length. Raises `Ambiguous`.

    llhttp let only one Content-Length pass, and only digits in it.
    """
    values = fields.values
    announced = values.get(b"content-length")
    length = None if announced is None else int(announced)
    coding = values.get(b"transfer-encoding")
    if coding is not None:
        # A second line would be a second coding, which nobody here undoes.
        single = (
            b"transfer-encoding" not in fields.repeated and coding.strip().lower() == b"chunked"
        )
        if not single or version == "1.0" or length is not None:
            raise Ambiguous
    # Of two types the caller might believe the one that was not judged.
    if b"content-type" in fields.differing:
        raise Ambiguous
    if not expect_body or status in (204, 304):
        return Framing.NONE, length
    if coding is not None:
        return Framing.CHUNKED, None
    return (Framing.LENGTH, length) if length is not None else (Framing.CLOSE, None)
