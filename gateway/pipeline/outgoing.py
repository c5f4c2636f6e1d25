"""Composes the upstream request from the caller's request: body, target and fields.

The request passes unchanged, except for URLs of the gateway and for what the settings let the
gateway add on the caller's behalf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.bundle_type import (
    AmbiguousBundleTypeError,
    BundleTypeScanner,
    new_bundle_type_scanner,
)
from gateway.fhir.interaction import BUNDLES, Interaction, refine_bundle
from gateway.http.client.response_header import remove_content_fields, remove_digest_fields
from gateway.http.headers import RequestHeader
from gateway.http.server.connection import IncomingRequest
from gateway.http.target import RequestTarget
from gateway.pipeline.caller_side import DownstreamWriter
from gateway.pipeline.link_translation import LinkTranslator
from gateway.pipeline.max_forwards import decrement_max_forwards
from gateway.pipeline.permissions import Permissions
from gateway.pipeline.platform_client import PlatformClient, fetch_etag
from gateway.pipeline.request_body import BodyLimits, RequestBody
from gateway.pipeline.request_context import RequestContext
from gateway.pipeline.search_guard import SearchGuard
from gateway.pipeline.upstream import UpstreamRequest

_BUNDLE_PREFIX: Final = 64 * 1024
_FRAMING: Final = frozenset((b"content-length", b"transfer-encoding"))
_FORM: Final = "application/x-www-form-urlencoded"


class RequestComposer:
    """Composes requests to the platform, whose base path is `platform_path`.

    `client` is set where updates without If-Match get the version of the current resource, `guard`
    where searches are guarded.
    """

    def __init__(
        self,
        platform_path: str,
        *,
        limits: BodyLimits,
        clock: Callable[[], float],
        guard: SearchGuard | None,
        client: PlatformClient | None,
    ) -> None:
        self._platform_path = platform_path
        self._limits = limits
        self._clock = clock
        self._guard = guard
        self._client = client

    def request_body(
        self, request: IncomingRequest, header: RequestHeader, downstream: DownstreamWriter
    ) -> RequestBody | None:
        """Return the request's body, None when the message announces none.

        Raises `GatewayError` payload-too-large for an announced length over the limit.
        """
        length = header.values.get(b"content-length")
        if length is None and not request.has_body:
            return None
        expects = (header.text(b"expect") or "").strip().lower() == "100-continue"
        return RequestBody(
            request.payload,
            None if length is None else int(length),
            limits=self._limits,
            clock=self._clock,
            before_wait=downstream.send_100_continue if expects else None,
        )

    async def classify_by_body(
        self,
        header: RequestHeader,
        body: RequestBody,
        interaction: Interaction,
        links: LinkTranslator,
    ) -> Interaction:
        """Read as much of the body as is needed before forwarding; return the interaction."""
        transform = links.request_transform(header, interaction)
        if transform is not None:
            # It is read ahead below, so that a short body is still sent with its new length.
            body.set_transform(transform)
        # The form of a search is checked for permissions.
        if transform is not None or interaction.is_search:
            await body.peek(self._limits.replay_bytes)
        if interaction.code != "transaction":
            return interaction
        # Only the Bundle itself shows whether it is a batch or a transaction.
        prefix = await body.peek(_BUNDLE_PREFIX)
        return refine_bundle(
            interaction,
            prefix,
            header.text(b"content-type") or "",
            encoded=b"content-encoding" in header.values,
        )

    def compose(self, context: RequestContext, version: bytes | None = None) -> UpstreamRequest:
        """Return the upstream request; with `version`, an ETag, it gets an If-Match."""
        exchange, target, caller_context, body = (
            context.exchange,
            context.target,
            context.caller_context,
            context.body,
        )
        if target.query:
            target = RequestTarget(
                target.path, caller_context.link_translator.translate_query(target.query)
            )
        field_lines = context.field_lines
        if body is not None and body.is_transformed:
            field_lines = remove_digest_fields(field_lines)
        elif body is None and not _FRAMING.isdisjoint(context.header.values):
            field_lines = remove_content_fields(field_lines)
        field_lines, goes_on = decrement_max_forwards(exchange.method, field_lines)
        if context.interaction.is_search and self._guard is not None:
            field_lines = [*field_lines, *self._guard.strict_handling_lines(caller_context.header)]
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

    def needs_if_match(self, context: RequestContext) -> bool:
        """Return whether an update has no version and the settings require the current one."""
        return self._client is not None and _is_unconditional_update(context)

    async def fetch_current_version(self, context: RequestContext) -> bytes | None:
        """Return the ETag of the resource that is updated, or None. Raises `GatewayError`."""
        if self._client is None:
            return None
        exchange, path = context.exchange, context.target.path
        credential = exchange.credential or "default"
        return await fetch_etag(self._client, path, credential, exchange.request_id)


def add_bundle_type_check(
    body: RequestBody | None,
    header: RequestHeader,
    interaction: Interaction,
    permissions: Permissions,
) -> None:
    """Make sure that a Bundle keeps the type found at its beginning, where permissions need that.

    A second `type` could follow far behind the beginning. Reading the body then raises
    `GatewayError` caller-forbidden, so that the platform receives no complete request.
    """
    if (
        body is None
        or interaction.code not in BUNDLES
        or not permissions.distinguishes_bundle_types
    ):
        return
    scanner: BundleTypeScanner | None = None

    def check_chunk(data: bytes) -> None:
        nonlocal scanner
        try:
            scanner = scanner or new_bundle_type_scanner(header.text(b"content-type") or "", data)
            scanner.feed(data)
        except AmbiguousBundleTypeError:
            raise GatewayError(
                errors.CALLER_FORBIDDEN, "second type", hint="interaction", close_connection=True
            ) from None

    body.add_observer(check_chunk)


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
    is_form = (context.header.text(b"content-type") or "").startswith(_FORM)
    form = (body.buffered() or b"") if is_form else b""
    return "&".join(part for part in (query, form.decode("latin-1")) if part)
