"""Judges a platform's answer before it goes on: redirects and pages are no FHIR answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conformity import (
    LOOKED_AT,
    is_error_page,
    is_fhir,
    is_page,
    is_plain_json,
    media_type,
    names_type,
)
from gateway.fhir.interaction import Interaction
from gateway.fhir.negotiation import asks_for
from gateway.http.client.framing import Framing
from gateway.http.client.response import PREFETCH, Answer
from gateway.http.content_coding import OPENED, STEP, Opening, beginning
from gateway.http.retry_after import parse_retry_after

# All but 304, which answers a conditional read; following one would take the token along.
_REDIRECTS: Final = frozenset((300, 301, 302, 303, 305, 306, 307, 308))

# Of content that does not tell by its beginning so much is held back until it does, or is over.
_HELD_BACK: Final = 16 * 1024 * 1024
# What is asked for is data: an answer without any would be taken for "there is none".
_READS: Final = frozenset(
    (
        *("read", "vread", "search-type", "search-system"),
        *("history-instance", "history-type", "history-system"),
    )
)
_BODILESS: Final = frozenset((204, 304))
# White space may stand between the name and its colon.
_OVERLAP: Final = 64


def examine(answer: Answer, what: Interaction, accept: str | None, query: str = "") -> bool:
    """Raises `GatewayError` upstream-redirect or upstream-non-fhir for what must not go on.

    True: what is here of the answer does not tell; then `hold_back` has to. `query` is that of the
    request, with what a search has in its form.
    """
    status = answer.status
    if status == 200 and is_plain_json(answer.content_type, answer.prefetched):
        return False
    if status in _REDIRECTS:
        detail = f"the platform answered with a redirect (status {status})"
        raise GatewayError(errors.UPSTREAM_REDIRECT, detail, upstream_status=status)
    if status in _BODILESS or what.resource == "Binary":
        return False
    kind = media_type(answer.content_type)
    body, visible = _content(answer)
    if status >= 400 and visible:
        foreign = is_error_page(kind, body, accept, query)
    else:
        foreign = is_page(kind, body, accept, query)
    if foreign:
        raise _non_fhir(answer)
    if status >= 300 or what.code not in _READS or not visible or _is_no_resource(answer):
        return False
    known = is_fhir(body)
    if known or asks_for(kind, query, accept):
        return False
    if known is None and not (answer.complete and answer.content_coding is None):
        return True
    raise _non_fhir(answer)


async def hold_back(answer: Answer) -> None:
    """Take so much of an answer as tells whether it is FHIR.

    Raises `GatewayError` upstream-non-fhir, `Broken` and `BrokenCoding`.
    """
    look = _Look(answer.content_coding)
    seen, size = 0, PREFETCH
    while True:
        data = answer.prefetched
        for step in range(seen, len(data), STEP):
            for known in look.at(data[step : step + STEP]):
                if known:
                    return
                if known is False or look.size >= _HELD_BACK:
                    raise _non_fhir(answer)
                await asyncio.sleep(0)
        seen = len(data)
        if answer.complete:
            look.end()
        if answer.complete or seen >= _HELD_BACK:
            raise _non_fhir(answer)
        size = min(2 * max(size, seen), _HELD_BACK)
        await answer.prefetch(size)


class _Look:
    """Looks for signs of FHIR in a body that comes piece by piece; `size` is that of its content.

    What is compressed is opened, in steps of bounded work.
    """

    def __init__(self, coding: str | None) -> None:
        self.size = 0
        self._opening = None if coding is None else Opening(coding)
        self._beginning = b""
        self._last = b""

    def at(self, data: bytes) -> Iterator[bool | None]:
        """Look at the next piece: what is known, after each step. Raises `BrokenCoding`."""
        for piece in iter((data,)) if self._opening is None else self._opening.steps(data):
            self.size += len(piece)
            if len(self._beginning) < LOOKED_AT:
                self._beginning += piece
                yield is_fhir(self._beginning)
            else:
                yield names_type(self._last + piece) or None
            self._last = (self._last + piece)[-_OVERLAP:]

    def end(self) -> None:
        """The body is whole. Raises `BrokenCoding` when it is not."""
        if self._opening is not None:
            self._opening.finish()


def _content(answer: Answer) -> tuple[bytes, bool]:
    """What is at hand of the body, opened; and whether it can be looked at."""
    coding = answer.content_coding
    if answer.framing is Framing.NONE or (coding is not None and coding not in OPENED):
        return b"", False
    return beginning(answer.prefetched, coding, LOOKED_AT), True


def _is_no_resource(answer: Answer) -> bool:
    """Whether a 2xx is not the answer itself: a part of one, or where it will be found."""
    return answer.status == 206 or (
        answer.status == 202 and answer.header(b"content-location") is not None
    )


def _non_fhir(answer: Answer) -> GatewayError:
    return GatewayError(
        errors.UPSTREAM_NON_FHIR,
        f"the platform's answer is not FHIR (status {answer.status})",
        upstream_status=answer.status,
        retry_after=parse_retry_after(answer.header(b"retry-after"), time.time()),
    )
