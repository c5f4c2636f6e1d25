"""How one response is changed on its way: decided by the translation, done by the writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.http.client.response import UpstreamResponse
from gateway.http.client.response_header import remove_digest_fields
from gateway.http.content_coding import BodyTransform


# Not frozen: the constructor of one that is cannot be compiled.
@dataclass(slots=True)
class ResponsePlan:
    """How an answer changes on its way: the values of its fields, its body, a warning.

    `translate` gives the value for a lower-case field name and a value; None changes nothing.
    `warning` is the value of X-Gateway-Warning. `is_decoded`: the transform undoes the content
    coding.
    """

    translate: Callable[[bytes, bytes], bytes] | None = None
    transform: BodyTransform | None = None
    warning: bytes | None = None
    is_decoded: bool = False


UNCHANGED: Final = ResponsePlan()


def strip_stale_digests(response: UpstreamResponse, field_lines: list[bytes]) -> list[bytes]:
    """The lines for a body that was changed, whose digests are wrong."""
    return remove_digest_fields(field_lines) if response.fields.has_digest else field_lines
