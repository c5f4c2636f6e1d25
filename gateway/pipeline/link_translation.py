"""Applies `gateway.fhir.links` to messages: selects the bodies and fields, and handles codings.

Absolute platform URLs in responses become URLs of the gateway as the caller addresses it, and vice
versa in requests. A body that is not FHIR, the content of a Binary, partial content (206) and a
body in an unknown content coding pass unchanged.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from gateway import errors, field_values
from gateway.errors import GatewayError
from gateway.fhir.capability_statement import SecurityRemovingRewriter
from gateway.fhir.links.link_map import LinkMap, replace_in_query
from gateway.fhir.links.rewriting import (
    is_known_unchanged,
    is_rewritten,
    rewrite_header,
    rewrite_request_header,
    rewriter_for,
)
from gateway.fhir.links.stream_rewriter import Rewriter, StreamRewriter
from gateway.http.client.response_head import Framing
from gateway.http.content_coding import (
    DECODABLE,
    BodyTransform,
    DecodingTransform,
    RecodingTransform,
    accepts_coding,
    upstream_accept_encoding,
)
from gateway.pipeline.response_checks import FhirCheckTransform
from gateway.pipeline.response_writer import ResponsePlan

if TYPE_CHECKING:
    from gateway.config.inbound_settings import ListenSettings
    from gateway.config.outbound_settings import PlatformSettings, RewriteSettings
    from gateway.fhir.interaction import Interaction
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.headers import RequestHeader
    from gateway.http.request_target import RequestTarget

# Request fields whose values may contain gateway URLs.
_FIELDS_WITH_URLS: Final = frozenset((b"if-none-exist", b"x-provenance", b"x-security-context"))
# Interactions that transfer the content of a Binary, or the resource if the media type is FHIR's.
_BINARY_INTERACTIONS: Final = frozenset(("read", "vread", "create", "update"))
CountLinks = Callable[[int, int], None]


def platform_links(platform: PlatformSettings, rewrite: RewriteSettings) -> LinkMap | None:
    """Return which URLs are the platform's; None if links are not rewritten."""
    base = platform.fhir_base_url
    return LinkMap(base, base, rewrite.aliases) if rewrite.enabled else None


class LinkTranslatorFactory:
    """Makes the link translator for a caller, with the base URLs of platform and gateway.

    Without `listen.public_url` the gateway's base URL is made of the Host that the caller sends.
    `on_links` is called for each body with the numbers of URLs that were replaced and that were
    left.
    """

    def __init__(
        self,
        *,
        listen: ListenSettings,
        platform: PlatformSettings,
        rewrite: RewriteSettings,
        on_links: CountLinks,
    ) -> None:
        self._base_path = listen.base_path
        self._platform_url = platform.fhir_base_url
        self._aliases = rewrite.aliases
        self._enabled = rewrite.enabled
        # Whether gzip is requested from the platform, whatever the caller accepts.
        self._requests_gzip = platform.compression != "off"
        self._on_links = on_links
        is_fixed = not rewrite.enabled or listen.public_url is not None
        self._fixed = self._new_translator(listen.public_url) if is_fixed else None
        # Callers send few different hosts. One that sends many takes processor time, not memory.
        self._by_host = lru_cache(maxsize=64)(self._translator_for_host)

    def translator_for(self, header: RequestHeader, scheme: str = "http") -> LinkTranslator:
        """Return the link translator for a caller whose request has this header and `scheme`."""
        if self._fixed is not None:
            return self._fixed
        return self._by_host(header.text(b"host") or "", scheme)

    def _translator_for_host(self, host: str, scheme: str) -> LinkTranslator:
        if not field_values.is_host_field(host.encode()):
            return self._new_translator(None)
        return self._new_translator(f"{scheme}://{host}{self._base_path}")

    def _new_translator(self, gateway_url: str | None) -> LinkTranslator:
        links = None
        if self._enabled and gateway_url is not None:
            links = LinkMap(self._platform_url, gateway_url, self._aliases)
        return LinkTranslator(links, requests_gzip=self._requests_gzip, on_links=self._on_links)


class LinkTranslator:
    """Translates messages between a caller and the platform; without `links` no URL changes."""

    __slots__ = ("_fields_only", "_on_links", "_requests_gzip", "links")

    def __init__(self, links: LinkMap | None, *, requests_gzip: bool, on_links: CountLinks) -> None:
        self.links = links
        self._requests_gzip = requests_gzip
        self._on_links = on_links
        # The plan for a response whose body stays unchanged.
        self._fields_only = ResponsePlan(None if links is None else partial(rewrite_header, links))

    def target_suffix(self, target: RequestTarget) -> str:
        """Return path and query; gateway URLs in the query's values become platform URLs."""
        path, query = target.path, target.query
        if query and self.links is not None and ("%" in query or "http" in query.lower()):
            query = replace_in_query(query, self.links.requests, path)
        return f"{path}?{query}" if query else path

    def request_field_lines(self, header: RequestHeader) -> list[bytes]:
        """Return the caller's field lines with platform URLs and an adjusted Accept-Encoding.

        Only content codings remain that the gateway can decode.
        """
        field_lines = header.field_lines
        if self.links is not None and header.values.keys() & _FIELDS_WITH_URLS:
            links = self.links
            field_lines = [_translate_field_line(line, links) for line in field_lines]
        return _restrict_accept_encoding(
            field_lines, header.values.get(b"accept-encoding"), gzip=self._requests_gzip
        )

    def request_transform(
        self, header: RequestHeader, interaction: Interaction
    ) -> BodyTransform | None:
        """Return the transform of a request's body, or None."""
        links, kind = self.links, header.text(b"content-type") or ""
        if links is None or b"content-encoding" in header.values:
            return None
        of_binary = _transfers_binary(interaction)
        if not is_rewritten(kind, "to-platform", of_binary=of_binary):
            return None
        return _RequestRewriter(kind, links, self._on_links, of_binary=of_binary)

    def response_plan(
        self,
        response: UpstreamResponse,
        interaction: Interaction,
        header: RequestHeader,
        warning: bytes | None,
        fhir_error: GatewayError | None,
    ) -> ResponsePlan:
        """Return how a response changes on its way to the caller that sent the request header.

        `warning`: the value of X-Gateway-Warning. `fhir_error`: the error if the rest of the body
        turns out not to be FHIR. Raises `GatewayError` upstream-failed for partial content in a
        coding that the caller does not accept.
        """
        coding = response.content_coding
        plain = coding is None and warning is None and fhir_error is None
        if plain and self._is_known_unchanged(response, interaction):
            return self._fields_only
        transform: BodyTransform | None = None
        if response.status not in (204, 206):
            # A 304 describes the body of a 200 (RFC 9110 section 8.6), but rarely names its type.
            kind = "application/fhir+json" if response.status == 304 else ""
            transform = self._response_rewriter(response.content_type or kind, interaction)
        if fhir_error is not None:
            transform = FhirCheckTransform(fhir_error, transform)
        is_decoded = False
        if coding in DECODABLE:
            is_decoded = not accepts_coding(header.values.get(b"accept-encoding"), coding)
            transform = _coded_transform(response, coding, transform, is_decoded=is_decoded)
        elif coding is not None:
            transform = None
        return ResponsePlan(self._fields_only.translate, transform, warning, is_decoded)

    def _is_known_unchanged(self, response: UpstreamResponse, interaction: Interaction) -> bool:
        """Return whether the body certainly needs no rewriter.

        With a rewriter a read takes 1.3 times the processor time.
        """
        if self.links is None:
            return True
        if not response.is_complete or interaction.code == "capabilities":
            return False
        if response.framing is Framing.NONE:
            # A response to HEAD has the length of a body that never comes.
            return False
        kind = response.content_type or ""
        return is_known_unchanged(response.buffered_body, kind, self.links.responses)

    def _response_rewriter(self, kind: str, interaction: Interaction) -> BodyTransform | None:
        if self.links is None:
            return None
        of_binary = _transfers_binary(interaction)
        if not is_rewritten(kind, "to-gateway", of_binary=of_binary):
            return None
        rewriter = rewriter_for(kind, self.links, "to-gateway", of_binary=of_binary)
        if interaction.code == "capabilities":
            rewriter = SecurityRemovingRewriter(rewriter, xml="xml" in kind.lower())
        return _CountingRewriter(rewriter, self._on_links)


def _transfers_binary(interaction: Interaction) -> bool:
    return interaction.resource == "Binary" and interaction.code in _BINARY_INTERACTIONS


class _CountingRewriter:
    """A rewriter that reports its counts at the end of the body."""

    __slots__ = ("_on_links", "_rewriter")

    def __init__(self, rewriter: Rewriter, on_links: CountLinks) -> None:
        self._rewriter = rewriter
        self._on_links = on_links

    def feed(self, chunk: bytes) -> bytes:
        return self._rewriter.feed(chunk)

    def finish(self) -> bytes:
        rest = self._rewriter.finish()
        self._on_links(self._rewriter.rewritten, self._rewriter.unrewritten)
        return rest

    def transform_complete(self, body: bytes) -> list[bytes] | None:
        rewriter = self._rewriter
        if not isinstance(rewriter, StreamRewriter):
            return None
        chunks = rewriter.transform_complete(body)
        self._on_links(rewriter.rewritten, rewriter.unrewritten)
        return chunks


class _RequestRewriter:
    """Rewrites a request body. The rewriter is made on demand: few complete bodies need one."""

    __slots__ = ("_kind", "_links", "_of_binary", "_on_links", "_rewriter")

    def __init__(self, kind: str, links: LinkMap, on_links: CountLinks, *, of_binary: bool) -> None:
        self._kind = kind
        self._links = links
        self._on_links = on_links
        self._of_binary = of_binary
        self._rewriter: _CountingRewriter | None = None

    def _get_rewriter(self) -> _CountingRewriter:
        if self._rewriter is None:
            rewriter = rewriter_for(
                self._kind, self._links, "to-platform", of_binary=self._of_binary
            )
            self._rewriter = _CountingRewriter(rewriter, self._on_links)
        return self._rewriter

    def feed(self, chunk: bytes) -> bytes:
        return self._get_rewriter().feed(chunk)

    def finish(self) -> bytes:
        return self._get_rewriter().finish()

    def transform_complete(self, body: bytes) -> list[bytes] | None:
        if is_known_unchanged(body, self._kind, self._links.requests):
            return [body]
        return self._get_rewriter().transform_complete(body)


def _translate_field_line(line: bytes, links: LinkMap) -> bytes:
    name, _, value = line.partition(b": ")
    key = name.lower()
    if key not in _FIELDS_WITH_URLS:
        return line
    return b"%s: %s\r\n" % (name, rewrite_request_header(links, key, value[:-2]))


def _restrict_accept_encoding(
    field_lines: list[bytes], accepted: bytes | None, *, gzip: bool
) -> list[bytes]:
    """Return the field lines with the content codings that the platform may use.

    `gzip`: gzip is requested whatever the caller accepts, except for a range request: partial
    content is a part of the encoded body and could not be decoded.
    """
    requested = upstream_accept_encoding(accepted)
    if (
        gzip
        and not accepts_coding(accepted, "gzip")
        and not any(line.lower().startswith(b"range:") for line in field_lines)
    ):
        requested = b"gzip"
    if accepted == requested:
        return field_lines
    if accepted is not None:
        field_lines = [
            line for line in field_lines if not line.lower().startswith(b"accept-encoding:")
        ]
    return [*field_lines, b"Accept-Encoding: " + requested + b"\r\n"]


def _coded_transform(
    response: UpstreamResponse, coding: str, content: BodyTransform | None, *, is_decoded: bool
) -> BodyTransform | None:
    """Return the transform of an encoded body, which is decoded (`is_decoded`) or encoded again."""
    if not is_decoded:
        return None if content is None else RecodingTransform(coding, content)
    if response.status == 206 and response.framing is not Framing.NONE:
        detail = "the platform sent a part of a compressed body, which cannot be opened"
        raise GatewayError(errors.UPSTREAM_FAILED, detail, hint="ask without Range")
    return DecodingTransform(coding, content)
