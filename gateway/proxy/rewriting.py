"""Applies `gateway.fhir.links` to the messages that pass: which bodies and fields, in which coding.

Absolute platform URLs in answers become URLs of the gateway as the caller knows it, and the other
way round in requests. A body that is not FHIR, a Binary, a part (206) or one in an unknown coding
passes as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from gateway.fhir.interaction import Interaction
from gateway.fhir.links import (
    LinkMap,
    rewrite_header,
    rewrite_query,
    rewrite_request_header,
    rewriter_for,
)
from gateway.proxy.answer import Answer
from gateway.proxy.coding import InsideGzip, Transform
from gateway.proxy.headers import RequestHeader
from gateway.proxy.relay import UNCHANGED, Passage

_AUTHORITY: Final = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._\-]+)(?::[0-9]{1,5})?")
_KNOWN_CODINGS: Final = frozenset(("gzip", "x-gzip", "identity"))
_LINK_FIELDS: Final = frozenset((b"location", b"content-location", b"link"))
_QUERY_FIELDS: Final = frozenset((b"if-none-exist", b"x-provenance"))


class Rewriting:
    """Knows the platform's bases, and how callers know the gateway.

    `enabled` False: URLs pass unchanged. `public_url` is the callers' URL of `base_path`, or None:
    then it is made of the Host they send.
    """

    def __init__(
        self,
        platform: str,
        *,
        enabled: bool,
        aliases: tuple[str, ...],
        public_url: str | None,
        base_path: str,
    ) -> None:
        self._enabled = enabled
        self._platform = platform
        self._aliases = aliases
        self._base_path = base_path
        self._fixed = None if public_url is None else self._links(public_url)
        # Callers send few different hosts; one that sends many only makes us compute.
        self._by_host = lru_cache(maxsize=64)(self._links_by_host)

    def links(self, header: RequestHeader, scheme: str = "http") -> LinkMap | None:
        """The bases for a caller who came by `scheme`; None where its URLs pass unchanged."""
        if not self._enabled:
            return None
        if self._fixed is not None:
            return self._fixed
        return self._by_host(header.text(b"host") or "", scheme)

    def _links_by_host(self, host: str, scheme: str) -> LinkMap | None:
        if _AUTHORITY.fullmatch(host) is None:
            return None
        return self._links(f"{scheme}://{host}{self._base_path}")

    def _links(self, gateway: str) -> LinkMap:
        return LinkMap(self._platform, gateway, self._aliases)


def query_for_platform(query: str, links: LinkMap) -> str:
    """The query with absolute gateway URLs among its values made platform URLs."""
    return rewrite_query(query, links) if "http" in query.lower() else query


def lines_for_platform(header: RequestHeader, links: LinkMap) -> list[bytes]:
    """The caller's fields, with gateway URLs made platform URLs and codings that can be opened."""
    values = header.values
    if not (values.keys() & _QUERY_FIELDS or b"accept-encoding" in values):
        return header.lines
    return [_line_for_platform(line, links) for line in header.lines]


def _line_for_platform(line: bytes, links: LinkMap) -> bytes:
    name, _, value = line.partition(b": ")
    key = name.lower()
    if key == b"accept-encoding":
        return b"%s: %s\r\n" % (name, _codings(value[:-2]))
    if key not in _QUERY_FIELDS:
        return line
    text = value[:-2].decode("utf-8", "surrogateescape")
    text = rewrite_request_header(key.decode("ascii"), text, links)
    return b"%s: %s\r\n" % (name, text.encode("utf-8", "surrogateescape"))


def _codings(accepted: bytes) -> bytes:
    """Accept-Encoding without what we could not open; unchanged where there is nothing else."""
    wanted = [each.strip() for each in accepted.split(b",")]
    known = [
        each
        for each in wanted
        if each.partition(b";")[0].strip().lower().decode("latin-1") in _KNOWN_CODINGS
    ]
    if len(known) == len(wanted):
        return accepted
    return b", ".join(known) or b"identity"


def transform_for_platform(
    header: RequestHeader, what: Interaction, links: LinkMap | None
) -> Transform | None:
    """The transform of a request's body, or None."""
    if links is None or what.resource == "Binary" or b"content-encoding" in header.values:
        return None
    return rewriter_for(header.text(b"content-type") or "", links, "to-platform")


def passage(
    answer: Answer, what: Interaction, links: LinkMap | None, warning: bytes | None = None
) -> Passage:
    """How an answer changes on its way to the caller."""
    if links is None:
        return UNCHANGED if warning is None else Passage(warning=warning)
    return Passage(_translator(links), _transform_for_caller(answer, what, links), warning)


def _transform_for_caller(answer: Answer, what: Interaction, links: LinkMap) -> Transform | None:
    if what.resource == "Binary" or answer.status in (204, 206, 304):
        return None
    rewriter = rewriter_for(answer.header(b"content-type") or "", links, "to-gateway")
    coding = (answer.header(b"content-encoding") or "identity").strip().lower()
    if rewriter is None or coding == "identity":
        return rewriter
    return InsideGzip(rewriter) if coding in ("gzip", "x-gzip") else None


def _translator(links: LinkMap) -> Callable[[bytes, bytes], bytes]:
    def value_for_caller(key: bytes, value: bytes) -> bytes:
        if key not in _LINK_FIELDS:
            return value
        text = value.decode("utf-8", "surrogateescape")
        text = rewrite_header(key.decode("ascii"), text, links)
        return text.encode("utf-8", "surrogateescape")

    return value_for_caller
