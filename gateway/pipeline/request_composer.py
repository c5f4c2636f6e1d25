"""Composes the upstream request from the caller's request and forwards it with an access token.

The request (body, target and fields) passes unchanged, except for URLs of the gateway and for what
the settings let the gateway add on the caller's behalf. On OPTIONS, Max-Forwards is the remaining
number of forwards (RFC 9110 section 7.6.2). TRACE, the other method with this field, is rejected.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from gateway.fhir.interaction import Interaction, refine_bundle
from gateway.field_values import FORM_TYPE
from gateway.http.client.response_head import (
    remove_content_fields,
    remove_digest_fields,
)
from gateway.http.client.upstream_response import UpstreamResponse
from gateway.pipeline.permissions import MAX_BUNDLE_BYTES, PermissionCheck
from gateway.pipeline.platform_client import PlatformClient, fetch_etag
from gateway.pipeline.request_body import RequestBody
from gateway.pipeline.upstream import TokenRetry, UpstreamRequest

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings
    from gateway.exchange import Exchange
    from gateway.oauth.token_response import AccessToken
    from gateway.oauth.token_store import TokensInUse
    from gateway.pipeline.guards import SearchGuard
    from gateway.pipeline.request import RequestContext

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


_BUNDLE_PREFIX: Final = 64 * 1024
_FRAMING_FIELDS: Final = frozenset((b"content-length", b"transfer-encoding"))


class RequestComposer:
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
        forwarder: TokenRetry,
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
        caller = context.caller
        if caller.permissions.is_restricted:
            self._permissions.remember_status_url(
                response,
                caller=caller.name,
                links=context.caller_context.link_translator.links,
            )
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
        path = self._platform_path + caller_context.link_translator.target_suffix(target)
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
