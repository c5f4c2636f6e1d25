"""The changes to one response: decided by the link translator, applied by the response writer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.http.client.response import UpstreamResponse
from gateway.http.client.response_header import remove_digest_fields
from gateway.http.content_coding import BodyTransform


# Not frozen: mypyc cannot compile the constructor of a frozen dataclass.
@dataclass(slots=True)
class ResponsePlan:
    """How a response changes on its way: the values of its fields, its body, a warning.

    `translate` maps a lower-case field name and a value to the new value; None changes nothing.
    `warning` is the value of X-Gateway-Warning. `is_decoded`: the transform removes the content
    coding.
    """

    translate: Callable[[bytes, bytes], bytes] | None = None
    transform: BodyTransform | None = None
    warning: bytes | None = None
    is_decoded: bool = False


UNCHANGED: Final = ResponsePlan()


def strip_stale_digests(response: UpstreamResponse, field_lines: list[bytes]) -> list[bytes]:
    """Return the field lines without digests, which a changed body makes wrong."""
    return remove_digest_fields(field_lines) if response.fields.has_digest else field_lines
