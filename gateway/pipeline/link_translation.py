"""Applies `gateway.fhir.links` to the messages that pass: which bodies and fields, in which coding.

Absolute platform URLs in answers become URLs of the gateway as the caller knows it, and the other
way round in requests. A body that is not FHIR, a Binary, a part (206) or one in an unknown coding
passes as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway.fhir.interaction import Interaction
from gateway.fhir.links import LinkMap, rewriter_for
from gateway.fhir.links.rewriter import (
    Direction,
    Rewriter,
    rewrite_header,
    rewrite_query,
    rewrite_request_header,
    surely_unchanged,
)
from gateway.fhir.links.stream import StreamRewriter
from gateway.fhir.sign_in_offers import StatementRewriter
from gateway.http.client.framing import Framing
from gateway.http.client.response import Answer
from gateway.http.content_coding import Gunzip, InsideGzip, Transform, accepts_gzip, is_gzip
from gateway.http.headers import RequestHeader, items
from gateway.http.server import validation
from gateway.pipeline.response_plan import ResponsePlan

_KNOWN_CODINGS: Final = frozenset(("gzip", "x-gzip", "identity"))
_QUERY_FIELDS: Final = frozenset((b"if-none-exist", b"x-provenance"))
_CHANGED_FIELDS: Final = _QUERY_FIELDS | {b"accept-encoding"}
# A part would be one of the encoded body, which could not be opened.
_PART_ASKED: Final = b"range:"
_WITHOUT_BODY: Final = frozenset((204, 206, 304))

OnLinks = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Bases:
    """The platform's base URL with its other names; the gateway's path, or its whole `public_url`.

    Without `public_url` the gateway's base is made of the Host that callers send.
    """

    platform: str
    aliases: tuple[str, ...]
    base_path: str
    public_url: str | None = None


class Rewriting:
    """Knows the bases, and makes of them what translates for one caller.

    `enabled` False: URLs pass unchanged. `compressed`: answers are asked for in gzip, whatever the
    caller accepts. `on_links` is told of each body how many URLs were replaced and how many left.
    """

    def __init__(self, bases: Bases, *, enabled: bool, compressed: bool, on_links: OnLinks) -> None:
        self._bases = bases
        self._enabled = enabled
        self._compressed = compressed
        self._on_links = on_links
        self._fixed = self._translation(bases.public_url)
        # Callers send few different hosts; one that sends many only makes us compute.
        self._by_host = lru_cache(maxsize=64)(self._for_host)

    def translation(self, header: RequestHeader, scheme: str = "http") -> Translation:
        """What translates for a caller who came by `scheme`."""
        if not self._enabled or self._bases.public_url is not None:
            return self._fixed
        return self._by_host(header.text(b"host") or "", scheme)

    def _for_host(self, host: str, scheme: str) -> Translation:
        if not validation.is_host(host.encode()):
            return self._translation(None)
        return self._translation(f"{scheme}://{host}{self._bases.base_path}")

    def _translation(self, gateway: str | None) -> Translation:
        links = None
        if self._enabled and gateway is not None:
            links = LinkMap(self._bases.platform, gateway, self._bases.aliases)
        return Translation(links, compressed=self._compressed, on_links=self._on_links)


class Translation:
    """Changes messages between a caller and the platform; without `links` no URL changes."""

    __slots__ = ("_compressed", "_on_links", "_unchanged", "links")

    def __init__(self, links: LinkMap | None, *, compressed: bool, on_links: OnLinks) -> None:
        self.links = links
        self._compressed = compressed
        self._on_links = on_links
        self._unchanged = ResponsePlan(None if links is None else _translator(links))

    def query(self, query: str) -> str:
        """The query with absolute gateway URLs among its values made platform URLs."""
        if self.links is None or "http" not in query.lower():
            return query
        return rewrite_query(query, self.links)

    def lines(self, header: RequestHeader) -> list[bytes]:
        """The caller's fields with platform URLs, and codings for the answer that can be opened."""
        lines = header.lines
        if self.links is not None and header.values.keys() & _CHANGED_FIELDS:
            links = self.links
            lines = [_line_for_platform(line, links) for line in lines]
        if self._compressed and not accepts_gzip(header.values.get(b"accept-encoding")):
            lines = _asking_for_gzip(lines)
        return lines

    def of_request(self, header: RequestHeader, interaction: Interaction) -> Transform | None:
        """The transform of a request's body, or None."""
        if interaction.resource == "Binary" or b"content-encoding" in header.values:
            return None
        return self._counted(header.text(b"content-type"), "to-platform", interaction)

    def of_answer(
        self, answer: Answer, interaction: Interaction, header: RequestHeader, warning: bytes | None
    ) -> ResponsePlan:
        """How an answer changes on its way to the caller, whose request had that header."""
        coding = answer.content_coding
        if coding is None and warning is None and self._surely_unchanged(answer, interaction):
            return self._unchanged
        opened = (
            self._compressed
            and is_gzip(coding)
            and answer.status not in _WITHOUT_BODY
            and not accepts_gzip(header.values.get(b"accept-encoding"))
        )
        transform = self._content(answer, interaction)
        if opened:
            transform = Gunzip(transform)
        elif is_gzip(coding):
            transform = None if transform is None else InsideGzip(transform)
        elif (coding or "identity").strip().lower() != "identity":
            transform = None
        return ResponsePlan(self._unchanged.translate, transform, warning, opened)

    def _surely_unchanged(self, answer: Answer, interaction: Interaction) -> bool:
        """Whether the body passes as it is, told at once; that it does not has to be found out."""
        if self.links is None:
            return True
        if not answer.complete or interaction.code == "capabilities":
            return False
        if answer.framing is Framing.NONE:
            # What HEAD announces is the length of a body that is not there to be looked at.
            return False
        kind = answer.content_type or ""
        return surely_unchanged(answer.prefetched, kind, self.links)

    def _content(self, answer: Answer, interaction: Interaction) -> Transform | None:
        """The transform of the answer's content, whatever its coding."""
        if interaction.resource == "Binary" or answer.status in _WITHOUT_BODY:
            return None
        return self._counted(answer.content_type, "to-gateway", interaction)

    def _counted(
        self, content_type: str | None, direction: Direction, interaction: Interaction
    ) -> Transform | None:
        rewriter = None
        if self.links is not None:
            rewriter = rewriter_for(content_type or "", self.links, direction)
        if rewriter is None:
            return None
        if interaction.code == "capabilities" and direction == "to-gateway":
            rewriter = StatementRewriter(rewriter, xml="xml" in (content_type or "").lower())
        return _Counted(rewriter, self._on_links)


class _Counted:
    """A rewriter that tells at the end of its body what it did."""

    __slots__ = ("_on_links", "_rewriter", "feed")

    def __init__(self, rewriter: Rewriter, on_links: OnLinks) -> None:
        self._rewriter = rewriter
        self._on_links = on_links
        self.feed = rewriter.feed

    def finish(self) -> bytes:
        rest = self._rewriter.finish()
        self._on_links(self._rewriter.rewritten, self._rewriter.unrewritten)
        return rest

    def whole(self, body: bytes) -> list[bytes] | None:
        rewriter = self._rewriter
        if not isinstance(rewriter, StreamRewriter):
            return None
        pieces = rewriter.whole(body)
        self._on_links(rewriter.rewritten, rewriter.unrewritten)
        return pieces


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
    wanted = [each.strip() for each in items(accepted)]
    known = [
        each
        for each in wanted
        if each.partition(b";")[0].strip().lower().decode("latin-1") in _KNOWN_CODINGS
    ]
    if len(known) == accepted.count(b",") + 1:
        return accepted
    return b", ".join(known) or b"identity"


def _asking_for_gzip(lines: list[bytes]) -> list[bytes]:
    names = [line.partition(b" ")[0].lower() for line in lines]
    if _PART_ASKED in names:
        return lines
    others = [line for line, name in zip(lines, names, strict=True) if name != b"accept-encoding:"]
    return [*others, b"Accept-Encoding: gzip\r\n"]


def _translator(links: LinkMap) -> Callable[[bytes, bytes], bytes]:
    def value_for_caller(key: bytes, value: bytes) -> bytes:
        text = value.decode("utf-8", "surrogateescape")
        text = rewrite_header(key.decode("ascii"), text, links)
        return text.encode("utf-8", "surrogateescape")

    return value_for_caller
