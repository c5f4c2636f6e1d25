"""Checks a response before it is forwarded: redirects and HTML pages are no FHIR responses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.content_negotiation import (
    INSPECTED_BYTES,
    is_error_page,
    is_fhir,
    is_plain_json,
    is_unrequested_page,
    media_type,
    names_type,
    requests_media_type,
)
from gateway.fhir.vocabulary import HISTORIES, SEARCHES
from gateway.field_values import parse_retry_after
from gateway.health.evidence import UNPROCESSED_STATUSES
from gateway.http.client.response_head import Framing, UpstreamConnectionError
from gateway.http.client.upstream_connect import NOT_ACCEPTED
from gateway.http.content_coding import DECODABLE, BodyTransform, decode_prefix

if TYPE_CHECKING:
    from gateway.fhir.interaction import Interaction
    from gateway.http.client.upstream_response import UpstreamResponse

# All but 304, which is the response to a conditional read. Following a redirect would send the
# token to another server.
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 306, 307, 308))

# With these any server says that it did not process the request (RFC 9110 section 15.5, RFC 6585).
# Other errors may come after the effect: a firewall that inspects responses replaces them by 403.
_REFUSALS: Final = UNPROCESSED_STATUSES.union(
    (405, 407, 411, 413, 414, 415, 417, 421, 426, 428, 431, 511)
)

# Interactions that request data: a response without any would be taken for "no data exist".
_READS: Final = SEARCHES | HISTORIES | {"read", "vread"}
_CONTENT_TYPE_HINT: Final = "Content-Type: application/fhir+json, or callers[].content_type"
# Bytes of an error's body, and seconds for which more of it is awaited, to find out whether it is
# FHIR: a server that sorts the members of JSON sends a long OperationOutcome's type last.
_MAX_ERROR_BYTES: Final = 1024 * 1024
_ERROR_TIMEOUT: Final = 2.0
# Octets: the longest spelling of the name and the white space that may precede its colon.
_OVERLAP: Final = 128


async def buffer_error(response: UpstreamResponse) -> None:
    """Buffer more of a response with status 400 and above while it is uncertain if it is FHIR.

    Must be called before `check_response`, which judges a body that stalls or is cut off by the
    part that has arrived.
    """
    body, visible = _decoded_prefix(response)
    if visible and not response.is_complete and is_fhir(body) is None:
        with contextlib.suppress(TimeoutError, UpstreamConnectionError):
            async with asyncio.timeout(_ERROR_TIMEOUT):
                await response.prefetch(_MAX_ERROR_BYTES)


def check_response(
    response: UpstreamResponse,
    interaction: Interaction,
    accept: str | None,
    query: str = "",
    *,
    untyped: bool = False,
    wall_clock: Callable[[], float],
) -> GatewayError | None:
    """Raise `GatewayError` upstream-redirect or upstream-non-fhir if it must not be forwarded.

    Return such an error if the part received so far is inconclusive: a `FhirCheckTransform` must
    check the rest, and raise it. `query` is the request's query joined with the form of a search.
    `untyped` says that the request's body had no type. `wall_clock` returns Unix time.
    """
    status = response.status
    if status == 200 and is_plain_json(response.content_type, response.buffered_body):
        return None
    if status in _REDIRECTS:
        detail = f"the platform answered with a redirect (status {status})"
        raise GatewayError(errors.UPSTREAM_REDIRECT, detail, upstream_status=status)
    if status in (204, 304) or interaction.resource == "Binary":
        return None
    kind = media_type(response.content_type)
    body, visible = _decoded_prefix(response)
    if status >= 400 and visible:
        is_non_fhir = is_error_page(kind, body, accept, query)
    else:
        is_non_fhir = is_unrequested_page(kind, body, accept, query)
    if is_non_fhir:
        raise _non_fhir(response, wall_clock, untyped=untyped and status == 415)
    if (
        status >= 300
        or interaction.code not in _READS
        or not visible
        # Only a part of the result, or a note of where the result will be.
        or status == 206
        or (status == 202 and response.field(b"content-location") is not None)
    ):
        return None
    known = is_fhir(body)
    if known or requests_media_type(kind, query, accept):
        return None
    error = _non_fhir(response, wall_clock)
    if known is None and not (response.is_complete and response.content_coding is None):
        return error
    raise error


class FhirCheckTransform:
    """Forwards a body through a transform, and fails once it is certain that it is not FHIR.

    A long body is forwarded as it arrives, so that a failure then aborts the caller's connection.
    Raises `error`.
    """

    def __init__(self, error: GatewayError, inner: BodyTransform | None) -> None:
        self._error = error
        self._inner = inner
        self._known: bool | None = None
        self._beginning = b""
        self._last = b""

    def feed(self, chunk: bytes) -> bytes:
        if self._known is None:
            self._inspect(chunk)
        return chunk if self._inner is None else self._inner.feed(chunk)

    def finish(self) -> bytes:
        if not self._known:
            raise self._error
        return b"" if self._inner is None else self._inner.finish()

    def transform_complete(self, body: bytes) -> None:
        """Return None: the body has to be fed in chunks to be checked."""

    def _inspect(self, chunk: bytes) -> None:
        if len(self._beginning) < INSPECTED_BYTES:
            self._beginning += chunk
            self._known = is_fhir(self._beginning)
        elif names_type(self._last + chunk):
            self._known = True
        if self._known is False:
            raise self._error
        self._last = (self._last + chunk)[-_OVERLAP:]


def _decoded_prefix(response: UpstreamResponse) -> tuple[bytes, bool]:
    """Return the buffered part of the body, decoded, and whether it can be inspected."""
    coding = response.content_coding
    if response.framing is Framing.NONE or (coding is not None and coding not in DECODABLE):
        return b"", False
    size = INSPECTED_BYTES if response.status < 400 else _MAX_ERROR_BYTES
    return decode_prefix(response.buffered_body, coding, size), True


def _non_fhir(
    response: UpstreamResponse, wall_clock: Callable[[], float], *, untyped: bool = False
) -> GatewayError:
    detail = f"the platform's response is not FHIR (status {response.status})"
    if response.status == 400 and b"SSL certificate" in _decoded_prefix(response)[0]:
        # nginx 1.22.1 reports this by a page, and not in the handshake.
        detail = f"the platform {NOT_ACCEPTED} (status 400)"
    # Required with a 405 (RFC 9110 section 15.5.6).
    allow = response.field(b"allow")
    return GatewayError(
        errors.UPSTREAM_NON_FHIR,
        detail,
        hint=_CONTENT_TYPE_HINT if untyped else "",
        advice_key=(
            "media-type" if untyped else "unprocessed" if response.status in _REFUSALS else ""
        ),
        upstream_status=response.status,
        retry_after=parse_retry_after(response.field(b"retry-after"), wall_clock()),
        headers=() if allow is None else (("Allow", allow),),
    )
