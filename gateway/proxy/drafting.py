"""What the outbox needs of a request: how it is to be judged, and what is kept of it."""

from __future__ import annotations

import asyncio
import zlib
from typing import Final

from gateway.fhir.interaction import Interaction
from gateway.outbox.entry import Draft, RawLines, Recovery, Request
from gateway.outbox.qualifying import BY_ID, SETTLE, Judgement, Write, judge, without_async
from gateway.proxy.answer_header import without_digests
from gateway.proxy.asked import Asked
from gateway.proxy.coding import is_gzip
from gateway.proxy.target import Target

# Judging more than this at once would hold up the event loop.
_INLINE: Final = 64 * 1024
_MOST_OPENED: Final = 64 * 1024 * 1024


async def judged(asked: Asked) -> Judgement | None:
    """None where it cannot be queued, also as its body is not at hand any more."""
    body = b"" if asked.body is None else await asked.body.all()
    if body is None:
        return None
    header = asked.header
    coding = header.text(b"content-encoding")
    path, query = asked.target.path.removesuffix("?"), asked.target.query
    none_exist = header.text(b"if-none-exist")
    content_type = header.text(b"content-type")

    def look() -> Judgement | None:
        plain = _opened(body, coding)
        if plain is None:
            return None
        return judge(Write(asked.what.code, path, query, plain, content_type, none_exist))

    return look() if len(body) <= _INLINE and coding is None else await asyncio.to_thread(look)


async def drafted(
    asked: Asked, judgement: Judgement, base: str, *, cause: str, unknown: bool
) -> Draft:
    """What is kept of a write; `unknown`: an attempt at it may have had its effect."""
    body = None if asked.body is None else await asked.body.all()
    return Draft(
        caller=asked.caller.name,
        request=_request(asked, body or b"", base),
        orders=judgement.orders,
        recovery=judgement.recovery,
        doubt=unknown,
        cause=cause,
        delay=SETTLE if unknown and _is_searched_for(asked.what, judgement) else 0.0,
    )


def _is_searched_for(what: Interaction, judgement: Judgement) -> bool:
    """Whether the platform has to find it, also by a condition of the write's own."""
    return judgement.recovery is Recovery.ASK or what.code not in BY_ID


def _opened(body: bytes, coding: str | None) -> bytes | None:
    """The content; None in a coding that is not known here, or when it grows too large."""
    if coding is None or coding.strip().lower() == "identity":
        return body
    if not is_gzip(coding):
        return None
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        plain = unpack.decompress(body, _MOST_OPENED)
    except zlib.error:
        return None
    return plain if unpack.eof and not unpack.unused_data else None


def _request(asked: Asked, body: bytes, base: str) -> Request:
    lines = asked.met.lines
    if asked.body is not None and asked.body.changed:
        lines = without_digests(lines)
    target = Target(asked.target.path, asked.met.links.query(asked.target.query))
    what = asked.what
    return Request(
        method=asked.exchange.method,
        suffix=target.suffix,
        fields=tuple(_fields(lines)),
        body=body,
        credential=asked.caller.credential,
        interaction=what.code,
        resource=what.resource,
        resource_id=what.resource_id,
        request_id=asked.exchange.request_id,
        gateway_base=base,
    )


def _fields(lines: list[bytes]) -> RawLines:
    """The lines as fields, but for those of an answer that is waited for."""
    fields = []
    for line in lines:
        name, _, value = line[:-2].partition(b": ")
        key = name.lower()
        if key == b"prefer":
            value = without_async(value)
        if key != b"accept-encoding" and (value or key != b"prefer"):
            fields.append((name, value))
    return tuple(fields)
