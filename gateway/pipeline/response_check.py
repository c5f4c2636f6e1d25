"""Judges a platform's answer before it goes on: redirects and pages are no FHIR answers."""

from __future__ import annotations

import time
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conformity import is_error_page, is_page, media_type
from gateway.fhir.interaction import Interaction
from gateway.http.client.framing import Framing
from gateway.http.client.response import Answer
from gateway.http.content_coding import OPENED, beginning
from gateway.http.retry_after import parse_retry_after

# All but 304, which answers a conditional read; following one would take the token along.
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 306, 307, 308))

_LOOKED_AT: Final = 64 * 1024


def examine(answer: Answer, what: Interaction, accept: str | None) -> None:
    """Raises `GatewayError` upstream-redirect or upstream-non-fhir for what must not go on."""
    status = answer.status
    if status in _REDIRECTS:
        detail = f"the platform answered with a redirect (status {status})"
        raise GatewayError(errors.UPSTREAM_REDIRECT, detail, upstream_status=status)
    if what.resource != "Binary" and _is_foreign(answer, status, accept):
        raise GatewayError(
            errors.UPSTREAM_NON_FHIR,
            f"the platform's answer is not FHIR (status {status})",
            upstream_status=status,
            retry_after=parse_retry_after(answer.header(b"retry-after"), time.time()),
        )


def _is_foreign(answer: Answer, status: int, accept: str | None) -> bool:
    kind = media_type(answer.content_type)
    if answer.framing is Framing.NONE:
        # Nothing but the type tells what a GET would have got.
        return is_page(kind, b"", accept)
    coding = answer.content_coding
    if coding is not None and coding not in OPENED:
        return is_page(kind, b"", accept)
    body = beginning(answer.prefetched, coding, _LOOKED_AT)
    if status >= 400:
        return is_error_page(kind, body, accept)
    return is_page(kind, body, accept)
