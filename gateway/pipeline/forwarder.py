"""Composes the upstream request from the caller's request and forwards it with an access token.

The request (body, target and fields) passes unchanged, except for URLs of the gateway and for what
the settings let the gateway add on the caller's behalf. On OPTIONS, Max-Forwards is the remaining
number of forwards (RFC 9110 section 7.6.2). TRACE, the other method with this field, is rejected.

A 401 means that the platform rejected the token before it did anything (RFC 9110 section 15.5.2),
so that one retry with a new token is correct for every method. There is never a second one.

With `platform.compression: both`, request bodies towards the platform are compressed, for slow
networks. A server announces by `Accept-Encoding` in a response that it decodes compressed requests
(RFC 9110 section 12.5.3). Until then, and again once it has responded to one with 415, bodies are
sent uncompressed. Only buffered bodies are compressed, so that a request can be repeated
uncompressed after a 415.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.interaction import refine_bundle
from gateway.field_values import FORM_TYPE
from gateway.http.client.response_head import (
    DIGEST_LINES,
    Framing,
    ResponseFields,
    ResponseHead,
    remove_content_fields,
    remove_digest_fields,
)
from gateway.http.client.upstream_response import UpstreamResponse
from gateway.http.content_coding import accepts_coding, gzip_compress
from gateway.http.request_target import RequestTarget
from gateway.http.server.request_checks import METHODS
from gateway.pipeline.permissions import MAX_BUNDLE_BYTES
from gateway.pipeline.platform_client import fetch_etag
from gateway.pipeline.request_body import BufferedBody, RequestBody
from gateway.pipeline.upstream import UpstreamRequest

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings
    from gateway.exchange import Exchange
    from gateway.fhir.interaction import Interaction
    from gateway.oauth.token_response import AccessToken
    from gateway.pipeline.callers import TokensInUse
    from gateway.pipeline.guards import SearchGuard
    from gateway.pipeline.permissions import PermissionCheck
    from gateway.pipeline.platform_client import PlatformClient
    from gateway.pipeline.request import RequestContext
    from gateway.pipeline.upstream import Upstream

# A larger number is equivalent to no limit; a value with more digits is left unchanged.
_MAX_FORWARDS: Final = re.compile(rb"(max-forwards: )([0-9]{1,9})\r\n", re.IGNORECASE)


def _decrement_max_forwards(method: str, field_lines: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the field lines with Max-Forwards decremented, and whether to forward the request."""
    if method != "OPTIONS":
        return field_lines, True
    counted = []
    goes_on = True
    for line in field_lines:
        field = _MAX_FORWARDS.fullmatch(line)
        if field is not None:
            hops = int(field[2])
            goes_on = goes_on and hops > 0
            line = b"%s%d\r\n" % (field[1], max(0, hops - 1))
        counted.append(line)
    return counted, goes_on


def _final_recipient_response() -> UpstreamResponse:
    """Return the response of the gateway as the final recipient of an OPTIONS request."""
    allow = ", ".join(sorted(METHODS)).encode("ascii")
    return UpstreamResponse(
        ResponseHead(204, ResponseFields.from_pairs([(b"Allow", allow)]), Framing.NONE, None)
    )


class Forwarder:
    """Forwards with an access token, and once more with a new token after a 401."""

    def __init__(self, upstream: Upstream, on_retry: Callable[[str], None]) -> None:
        self._upstream = upstream
        self._on_retry = on_retry

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, tokens: TokensInUse, token: AccessToken
    ) -> UpstreamResponse:
        """Return the platform's response, which is never a 401. Raises `GatewayError`.

        `token` is the current one of `tokens`.
        """
        if outgoing.is_final_recipient:
            return _final_recipient_response()
        exchange.token_id = token.token_id
        response = await self._upstream.send(exchange, outgoing, token.authorization)
        if response.status == 401:
            token = await self._replacement_token(response, outgoing, tokens, token)
            exchange.token_id = token.token_id
            self._on_retry("token")
            response = await self._upstream.send(exchange, outgoing, token.authorization)
        if response.status == 401:
            response.close()
            tokens.on_fresh_token_rejected(token)
            raise _token_rejected_error("the platform refused a fresh token")
        if response.status < 500:
            tokens.on_token_accepted(token)
        return response

    async def _replacement_token(
        self,
        response: UpstreamResponse,
        outgoing: UpstreamRequest,
        tokens: TokensInUse,
        token: AccessToken,
    ) -> AccessToken:
        response.close()
        body = outgoing.body
        if body is not None:
            if not body.is_replayable:
                tokens.invalidate(token)
                detail = "the platform refused the token, and the body cannot be sent again"
                raise _token_rejected_error(detail, advice="body-gone")
            body.rewind()
        return await tokens.replace_rejected(token)


def _token_rejected_error(detail: str, advice: str = "") -> GatewayError:
    return GatewayError(errors.TOKEN_REJECTED, detail, upstream_status=401, advice_key=advice)


# Smaller bodies gain nothing: they fit into one packet uncompressed.
_MIN_BODY_BYTES: Final = 1024
# Compressing more than this would block the event loop for too long.
_MAX_INLINE_BYTES: Final = 128 * 1024
# Fields that describe the octets of the uncompressed body.
_REPRESENTATION_FIELDS: Final[tuple[bytes, ...]] = (b"content-encoding:", *DIGEST_LINES)


class CompressingForwarder:
    """Forwards through another forwarder, with compressed bodies once the platform accepts them.

    After a 415 bodies are not compressed again until the settings are reloaded.
    """

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._accepted = False
        self._refused = False

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, tokens: TokensInUse, token: AccessToken
    ) -> UpstreamResponse:
        """Return the response that the inner forwarder returns. Raises what that raises."""
        compressed = await self._compressed_request(outgoing)
        response = await self._forwarder.send(exchange, compressed or outgoing, tokens, token)
        if compressed is not None and response.status == 415:
            # The platform rejected the format (RFC 9110 section 15.5.16) and did not process the
            # request.
            response.close()
            response = await self._forwarder.send(exchange, outgoing, tokens, token)
            self._refused = response.status != 415  # a second 415 is about the Content-Type
        self._update_support(response)
        return response

    def _update_support(self, response: UpstreamResponse) -> None:
        field = response.fields.values.get(b"accept-encoding")
        if field is not None:
            self._accepted = accepts_coding(field, "gzip")

    async def _compressed_request(self, outgoing: UpstreamRequest) -> UpstreamRequest | None:
        if not self._accepted or self._refused or outgoing.body is None:
            return None
        body = outgoing.body.buffered()
        if body is None or len(body) < _MIN_BODY_BYTES:
            return None
        if any(line.lower().startswith(_REPRESENTATION_FIELDS) for line in outgoing.field_lines):
            return None
        large = len(body) > _MAX_INLINE_BYTES
        compressed = await asyncio.to_thread(gzip_compress, body) if large else gzip_compress(body)
        if len(compressed) >= len(body):
            return None
        field_lines = [*outgoing.field_lines, b"Content-Encoding: gzip\r\n"]
        return replace(outgoing, field_lines=field_lines, body=BufferedBody(compressed))


_BUNDLE_PREFIX: Final = 64 * 1024
_FRAMING_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))


class RequestForwarder:
    """Composes requests to the platform, whose base path is `platform_path`, and forwards them.

    `client` is set where updates without If-Match get the version of the current resource, `guard`
    where searches are guarded. `clock` is monotonic.
    """

    def __init__(
        self,
        platform_path: str,
        *,
        limits: LimitsSettings,
        clock: Callable[[], float],
        guard: SearchGuard | None,
        client: PlatformClient | None,
        forwarder: Forwarder | CompressingForwarder,
        permissions: PermissionCheck,
    ) -> None:
        self._platform_path = platform_path
        self._forwarder = forwarder
        self._permissions = permissions
        self._max_body_bytes = limits.max_body_bytes
        self._replay_bytes = limits.replay_buffer_bytes
        self._stall_timeout = limits.header_timeout
        self._min_body_rate = limits.min_body_rate
        self._clock = clock
        self._guard = guard
        self._client = client

    def request_body(self, context: RequestContext) -> RequestBody | None:
        """Return the request's body, None when the message announces none.

        Raises `GatewayError` payload-too-large for an announced length over the limit.
        """
        request, header = context.request, context.header
        length = header.values.get(b"content-length")
        if length is None and not request.has_body:
            return None
        expects = (header.text(b"expect") or "").strip().lower() == "100-continue"
        return RequestBody(
            request.payload,
            None if length is None else int(length),
            max_bytes=(
                min(self._max_body_bytes, MAX_BUNDLE_BYTES)
                if context.has_limited_bundle
                else self._max_body_bytes
            ),
            replay_bytes=self._replay_bytes,
            stall_timeout=self._stall_timeout,
            min_rate=self._min_body_rate,
            clock=self._clock,
            before_wait=context.downstream.send_100_continue if expects else None,
        )

    async def classify_by_body(self, context: RequestContext, body: RequestBody) -> Interaction:
        """Read as much of the body as is needed before forwarding; return the interaction."""
        header, interaction = context.header, context.interaction
        transform = context.caller_context.link_translator.request_transform(header, interaction)
        if transform is not None:
            # It is read ahead below, so that a short body is still sent with its new length, which
            # servers prefer to chunks.
            body.set_transform(transform)
        # The form of a search is checked for permissions.
        if transform is not None or interaction.is_search:
            await body.peek(self._replay_bytes)
        if interaction.code != "transaction" or context.has_limited_bundle:
            return interaction
        # Only the Bundle itself shows whether it is a batch or a transaction.
        prefix = await body.peek(_BUNDLE_PREFIX)
        return refine_bundle(
            interaction,
            prefix,
            header.text(b"content-type") or "",
            encoded=b"content-encoding" in header.values,
        )

    async def forward(self, context: RequestContext) -> UpstreamResponse:
        """Return the platform's response. Raises `GatewayError`."""
        if context.forwarding_error is not None:
            raise context.forwarding_error
        exchange, tokens = context.exchange, context.caller.tokens
        token = tokens.current() or await self._wait_for_token(exchange, tokens)
        version = None
        if self._client is not None and _is_unconditional_update(context):
            path = context.target.path
            version = await fetch_etag(self._client, path, tokens, exchange.request_id)
        outgoing = self._compose(context, version)
        started_at = self._clock()
        try:
            response = await self._forwarder.send(exchange, outgoing, tokens, token)
        finally:
            if exchange.attempts:
                exchange.upstream_duration = self._clock() - started_at
        self._permissions.remember_status_url(context, response)
        return response

    async def _wait_for_token(self, exchange: Exchange, tokens: TokensInUse) -> AccessToken:
        started_at = self._clock()
        try:
            return await tokens.wait_for_token()
        finally:
            exchange.token_wait = (started_at, self._clock())

    def _compose(self, context: RequestContext, version: bytes | None) -> UpstreamRequest:
        """Return the upstream request; with `version`, an ETag, it gets an If-Match."""
        exchange, target, caller_context, body = (
            context.exchange,
            context.target,
            context.caller_context,
            context.body,
        )
        if target.query:
            target = RequestTarget(
                target.path, caller_context.link_translator.translate_query(target)
            )
        field_lines = context.field_lines
        if body is not None and body.is_transformed:
            field_lines = remove_digest_fields(field_lines)
        elif body is None and not _FRAMING_FIELDS.isdisjoint(context.header.values):
            field_lines = remove_content_fields(field_lines)
        field_lines, goes_on = _decrement_max_forwards(exchange.method, field_lines)
        if context.interaction.is_search and self._guard is not None:
            field_lines = [*field_lines, *self._guard.strict_handling_lines(context.header)]
        if version is not None:
            field_lines = [*field_lines, b"If-Match: %s\r\n" % version]
        path = self._platform_path + target.suffix
        return UpstreamRequest(
            method=exchange.method,
            target=(path if path.startswith("/") else "/" + path).encode("ascii"),
            field_lines=field_lines,
            request_id=exchange.request_id,
            body=body,
            is_retryable=context.interaction.is_safe,
            is_final_recipient=not goes_on,
        )


def _is_unconditional_update(context: RequestContext) -> bool:
    """Return whether a PUT of a resource has neither If-Match nor If-None-Match."""
    return (
        context.exchange.method == "PUT"
        and context.interaction.resource_id is not None
        and not context.header.values.keys() & {b"if-match", b"if-none-match"}
    )


def search_parameters(context: RequestContext) -> str:
    """Return the raw query; for a search, joined with its form where that is buffered."""
    query, body = context.target.query, context.body
    if body is None or not context.interaction.is_search:
        return query
    is_form = (context.header.text(b"content-type") or "").startswith(FORM_TYPE)
    form = (body.buffered() or b"") if is_form else b""
    return "&".join(part for part in (query, form.decode("latin-1")) if part)
