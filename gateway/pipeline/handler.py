"""The request path from top to bottom: the steps that every request passes, and nothing else.

Each step is one call that returns a value. What happened is recorded in the `Exchange`, which is
read once at the end, whatever the outcome: for the metrics, the audit record and the listeners.
Exceptions on the request path are mapped to a `GatewayError` and to a log level.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol

from gateway import errors
from gateway.errors import GatewayError, Reason
from gateway.exchange import Exchange
from gateway.fhir.interaction import Interaction, classify, is_safe_interaction, query_names
from gateway.http.client.response_head import UpstreamConnectionError
from gateway.http.content_coding import ContentCodingError
from gateway.http.headers import (
    FieldRuleCache,
    RequestHeader,
    parse_request_fields,
    request_id_of,
)
from gateway.http.request_target import RequestTarget, resolve_target
from gateway.http.server import request_checks
from gateway.http.server.peer import local_authority
from gateway.i18n import choose_language
from gateway.pipeline.admission import Admission
from gateway.pipeline.callers import ANONYMOUS, AuthResult, Caller, CallerRegistry
from gateway.pipeline.link_translation import LinkTranslatorFactory
from gateway.pipeline.own_replies import LocalResponder, outcome_format
from gateway.pipeline.permissions import PermissionCheck, bundle_overload
from gateway.pipeline.request import (
    CallerContext,
    RequestContext,
    cached_context,
    has_untyped_body,
)
from gateway.pipeline.request_body import CallerDisconnectedError, RequestBody
from gateway.pipeline.request_composer import RequestComposer, search_parameters
from gateway.pipeline.response_checks import buffer_error, check_response
from gateway.pipeline.response_writer import DownstreamWriter
from gateway.pipeline.unidentified_limit import UnidentifiedLimiter
from gateway.pipeline.upstream import BODILESS_METHODS, OUTCOME_UNKNOWN, connection_error
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.inbound_settings import LimitsSettings, ListenSettings
    from gateway.config.outbound_settings import FhirSettings
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.server.caller_connection import IncomingRequest
    from gateway.http.server.request_parser import ConnectionDisposition
    from gateway.pipeline.guards import ConditionGuard, SearchGuard

_log = get_logger(__name__)


@dataclass(slots=True)
class ExchangeAccounting:
    """Updates the metrics and writes one audit record for each finished exchange.

    `count` updates the metrics, `record` writes the audit record, and `listeners` are called
    last, in order. There is no audit record for requests of unidentified clients beyond
    `limits.unidentified_rate`: such requests could fill the disk.
    """

    count: Callable[[Exchange], None]
    record: Callable[[Exchange], None]
    listeners: tuple[Callable[[Exchange], None], ...]

    def account(self, exchange: Exchange) -> None:
        """Account for a finished exchange, which must not change afterwards."""
        self.count(exchange)
        if not exchange.is_audit_skipped:
            self.record(exchange)
        for listener in self.listeners:
            listener(exchange)


# These failures last until an operator acts.
_OPERATOR_REASONS: Final = frozenset(
    (errors.TOKEN_REFUSED, errors.TOKEN_REJECTED, errors.UPSTREAM_TLS, errors.UPSTREAM_REDIRECT)
)


def _log_level(reason: Reason) -> int:
    """Return the log level of a failure.

    ERROR: an operator has to act. WARNING: an outage (status 500 and above). INFO: a mistake of the
    caller.
    """
    if reason in _OPERATOR_REASONS:
        return logging.ERROR
    return logging.WARNING if reason.status >= 500 else logging.INFO


def _to_gateway_error(error: Exception, exchange: Exchange) -> GatewayError:
    """Return the error to send; a bug becomes `internal`, and its traceback is logged."""
    if isinstance(error, GatewayError):
        return error
    safe = is_safe_interaction(exchange.method, exchange.interaction)
    if isinstance(error, UpstreamConnectionError):
        failure = connection_error(error, safe=safe)
        return replace(failure, upstream_status=exchange.upstream_status)
    if isinstance(error, ContentCodingError):
        return GatewayError(
            errors.UPSTREAM_FAILED,
            "the platform's answer is not in the Content-Encoding that it names",
            hint="" if safe else OUTCOME_UNKNOWN,
            upstream_status=exchange.upstream_status,
        )
    # The only place that turns a bug into a response. The exception's message is omitted, because
    # it could quote data.
    exchange.reason = errors.INTERNAL.code
    _log.error("internal error", exc_info=error, **exchange.log_fields())
    return GatewayError(errors.INTERNAL, type(error).__name__, close_connection=True)


class WriteQueue(Protocol):
    """What queues writes that cannot be delivered: the outbox, which stands above this part."""

    def route(
        self, context: RequestContext
    ) -> Callable[[RequestContext], Awaitable[UpstreamResponse]]:
        """Return what gets the response to this request, whose interaction is known.

        For a path of the outbox the caller gets all permissions, and for a write that may be queued
        the context a memory budget for its body. What is returned raises `GatewayError`.
        """


class Handler:
    """Serves requests, one call of `handle` each.

    `fields` says which fields are forwarded, and `account` is called with each exchange at its end.
    The clocks are in seconds: `monotonic` for durations, `wall` for timestamps.
    """

    def __init__(
        self,
        *,
        listen: ListenSettings,
        limits: LimitsSettings,
        fhir: FhirSettings,
        fields: FieldRuleCache,
        admission: Admission,
        callers: CallerRegistry,
        permissions: PermissionCheck,
        unidentified_limiter: UnidentifiedLimiter,
        forwarder: RequestComposer,
        link_translators: LinkTranslatorFactory,
        search_guard: SearchGuard | None,
        condition_guard: ConditionGuard | None,
        write_queue: WriteQueue | None,
        account: Callable[[Exchange], None],
        monotonic: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._base_path = listen.base_path
        self._max_header_bytes = limits.max_all_headers_bytes
        self._write_stall_timeout = limits.write_stall_timeout
        self._default_language = fhir.default_language
        self._fields = fields
        self._admission = admission
        self._callers = callers
        self._permissions = permissions
        self._unidentified_limiter = unidentified_limiter
        self._forwarder = forwarder
        self._forward: Callable[[RequestContext], Awaitable[UpstreamResponse]] = forwarder.forward
        self._link_translators = link_translators
        self._half_closed_timeout = limits.half_closed
        self._search_guard = search_guard
        self._condition_guard = condition_guard
        self._write_queue = write_queue
        self._account = account
        self._monotonic = monotonic
        self._wall = wall

    def read_header(self, request: IncomingRequest) -> RequestHeader:
        """Return the parsed header, by which the request is handled or answered.

        In HTTP/1.0 without a Host, the local address of the connection is used as the host, because
        links are built from it.
        """
        header = parse_request_fields(request.message.raw_headers, self._fields)
        if b"host" not in header.values and (
            local_host := local_authority(request.connection.transport)
        ):
            header.values[b"host"] = local_host.encode("ascii")
        return header

    def account(
        self,
        request: IncomingRequest,
        header: RequestHeader,
        source: AuthResult | LocalResponder | None = None,
    ) -> RequestContext:
        """Return the context of a request, from the start of its exchange to its account.

        `source` has what is added to every response.
        """
        self._admission.inflight += 1
        exchange = Exchange(
            request_id=request_id_of(header),
            started_at=self._wall(),
            started_monotonic=self._monotonic(),
            method=request.message.method,
            remote=request.remote,
            traceparent=header.text(b"traceparent"),
        )
        downstream = DownstreamWriter(
            request,
            exchange,
            self._admission,
            stall_timeout=self._write_stall_timeout,
            wall_clock=self._wall,
            extra_field_lines=b"" if source is None else source.extra_field_lines,
            expired_session_responder=None if source is None else source.expired_session_responder,
        )
        return RequestContext(request, header, exchange, downstream, self._finish)

    def _finish(self, context: RequestContext) -> None:
        """Release what the request occupies, and account for its exchange."""
        if context.admitted is not None:
            self._admission.release(context.admitted.slots)
        self._admission.inflight -= 1
        exchange, body = context.exchange, context.received_body
        exchange.duration = self._monotonic() - exchange.started_monotonic
        if body is not None:
            exchange.request_bytes = body.received_bytes
            body.release()
        self._account(exchange)

    async def handle(
        self,
        request: IncomingRequest,
        auth: AuthResult | None = None,
        header: RequestHeader | None = None,
    ) -> ConnectionDisposition:
        """Answer one request and account for it.

        `auth`: result of authentication done before, with the `header` that was read for it.
        """
        message, connection = request.message, request.connection
        cached = cached_context(connection.cached_context, message, self) if auth is None else None
        if header is None:
            header = self.read_header(request) if cached is None else cached.header
        with self.account(request, header, auth) as context:
            exchange = context.exchange
            try:
                if cached is None:
                    self._check_message(context)
                request_checks.check_method(exchange.method)
                context.target = target = resolve_target(message.path, self._base_path)
                context.caller_context = cached or self._identify_caller(context, auth)
                self._record_caller(context)
                context.interaction = _classify(exchange, target)
                queue = self._write_queue
                forward = self._forward if queue is None else queue.route(context)
                self._require_permission(context)
                await self._admit(context, context.caller)
                context.received_body = body = self._forwarder.request_body(context)
                if body is not None:
                    await self._inspect_body(context, body)
                elif context.has_limited_bundle:
                    await self._check_bundle(context, b"")
                exchange.unforwarded_fields = context.caller_context.unforwarded_fields
                interaction = context.interaction
                # Only safe requests are cancelled on disconnect: others may already have taken
                # effect.
                connection.set_cancel_on_disconnect(
                    exchange if interaction.is_safe else None, self._half_closed_timeout
                )
                if self._condition_guard is not None and not interaction.is_safe:
                    await self._condition_guard.check_request(context)
                return await self._send_response(context, await forward(context))
            except Exception as error:
                error = self._unidentified_limiter.limit_error(
                    request, header, exchange, auth, error
                )
                return await self._send_error(context, error)

    async def answer(
        self, request: IncomingRequest, responder: LocalResponder, header: RequestHeader
    ) -> ConnectionDisposition:
        """Answer a request that is not for the platform, and account for it."""
        with self.account(request, header, responder) as context:
            exchange = context.exchange
            try:
                peer = self._callers.resolve_peer(request.connection.peer, header)
                exchange.remote = peer.address
                self._check_message(context)
                await self._admit(context, ANONYMOUS)
                response = await responder.respond(exchange)
                return await context.downstream.write_local_response(response)
            except Exception as error:
                if isinstance(error, GatewayError):
                    # The pages have their own rate limit; requests beyond it get no audit record.
                    exchange.is_audit_skipped = (
                        error.reason is errors.RATE_LIMITED
                        or self._unidentified_limiter.exceeds_limit(exchange.remote)
                    )
                return await self._send_error(context, error)

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Answer a message that could not be parsed, and account for it."""
        with self.account(request, parse_request_fields(())) as context:
            final_error = self._unidentified_limiter.limit_error(
                request, context.header, context.exchange, None, error
            )
            return await self._send_error(context, final_error)

    def _check_message(self, context: RequestContext) -> None:
        request_checks.check_message(
            context.request.message, context.header, max_header_bytes=self._max_header_bytes
        )

    def _require_permission(self, context: RequestContext) -> None:
        """Raise `GatewayError` caller-forbidden for what the caller may not send."""
        caller = context.caller
        self._permissions.require(
            caller.permissions,
            context.exchange.method,
            context.interaction,
            context.target,
            context.header,
            caller=caller.name,
        )

    async def _admit(self, context: RequestContext, caller: Caller) -> None:
        """Admit the request of the caller, now or in its turn. Raises `GatewayError`."""
        is_first = not context.request.connection.is_reused
        if not self._admission.try_admit(caller.rate, caller.slots, is_first_request=is_first):
            await self._admission.wait_for_slot(caller.slots)
        context.admitted = caller

    def _identify_caller(self, context: RequestContext, auth: AuthResult | None) -> CallerContext:
        """Identify the caller and build its `CallerContext`. Raises `GatewayError` caller-*."""
        request, header = context.request, context.header
        connection = request.connection
        peer = self._callers.resolve_peer(connection.peer, header)
        context.exchange.remote = peer.address
        caller_context = CallerContext(
            request,
            header,
            self,
            caller=(auth or self._callers).identify(peer, header),
            remote=peer.address,
            link_translator=self._link_translators.translator_for(header, request.scheme),
        )
        is_cached = auth is None and caller_context.is_cacheable
        connection.cached_context = caller_context if is_cached else None
        return caller_context

    def _record_caller(self, context: RequestContext) -> None:
        exchange, caller_context = context.exchange, context.caller_context
        context.caller = caller = caller_context.caller
        context.field_lines = caller_context.upstream_field_lines
        exchange.remote = caller_context.remote
        exchange.caller, exchange.credential = caller.name, caller.credential
        exchange.user = caller.user
        if (asserted := caller_context.asserted_identity) is not None:
            exchange.user, exchange.is_user_asserted = asserted.user, asserted.user is not None
            exchange.purpose = asserted.purpose

    async def _inspect_body(self, context: RequestContext, body: RequestBody) -> None:
        """Set the interaction anew, which for a Bundle or a search by POST depends on the body.

        Raises `GatewayError` caller-forbidden.
        """
        if context.exchange.method in BODILESS_METHODS:
            await body.discard()
            return
        interaction, permissions = context.interaction, context.caller.permissions
        context.body = body
        context.declare_content_type()
        if context.has_limited_bundle:
            body.retain_in(self._admission.buffer_budget)
        elif context.queue_budget is not None:
            body.retain_in(context.queue_budget)
        refined = await self._forwarder.classify_by_body(context, body)
        if refined.is_search and permissions.is_restricted:
            permissions.require_form(context.header, body.buffered())
        if context.has_limited_bundle:
            complete = await body.read_all()
            if complete is None:
                raise bundle_overload()
            await self._check_bundle(context, complete)
        elif interaction.code == "transaction":
            context.interaction = _record_interaction(context.exchange, refined)

    async def _check_bundle(self, context: RequestContext, body: bytes) -> None:
        """Set the interaction of a limited caller's Bundle, and check its requests."""
        caller = context.caller
        code, error = await self._permissions.check_bundle(
            body,
            context.header,
            caller.permissions,
            caller=caller.name,
            links=context.caller_context.link_translator.links,
        )
        context.interaction = _record_interaction(context.exchange, Interaction(code))
        if error is not None:
            raise error

    async def _send_response(
        self, context: RequestContext, response: UpstreamResponse
    ) -> ConnectionDisposition:
        interaction, caller_context = context.interaction, context.caller_context
        try:
            query = search_parameters(context)
            if response.status >= 400:
                await buffer_error(response)
            fhir_error = check_response(
                response,
                interaction,
                caller_context.accept,
                query,
                untyped=has_untyped_body(context.header),
                wall_clock=self._wall,
            )
            warning = (
                await self._guard_warning(response, context, query)
                if interaction.is_search or context.conditions is not None
                else None
            )
            plan = caller_context.link_translator.response_plan(
                response, interaction, context.header, warning, fhir_error
            )
            return await context.downstream.forward_response(response, plan)
        finally:
            response.close()

    async def _guard_warning(
        self, response: UpstreamResponse, context: RequestContext, query: str
    ) -> bytes | None:
        """Return the guards' warning about a search or a write's conditions, or None."""
        if self._condition_guard is not None and context.conditions is not None:
            return (
                await self._condition_guard.response_warning(context)
                if response.status < 300
                else None
            )
        guard = self._search_guard
        return (
            None
            if guard is None
            else await guard.check_searchset(response, context.type_name, query)
        )

    async def _send_error(self, context: RequestContext, error: Exception) -> ConnectionDisposition:
        """Send the error as an OperationOutcome or a page, or abort if the response has begun."""
        exchange, downstream, header = context.exchange, context.downstream, context.header
        if isinstance(error, CallerDisconnectedError):
            return downstream.abort()
        failure = _to_gateway_error(error, exchange)
        exchange.reason = failure.reason.code
        _log.log(_log_level(failure.reason), "%s", failure, **exchange.log_fields())
        if downstream.has_started:
            return downstream.abort()
        responder = downstream.expired_session_responder
        if responder is not None and failure.reason is errors.CALLER_UNAUTHENTICATED:
            downstream.extra_field_lines = responder.extra_field_lines
            return await downstream.write_local_response(await responder.respond(exchange))
        language = choose_language(header.text(b"accept-language"), self._default_language)
        form = outcome_format(context.request.message, header.text(b"accept"))
        try:
            return await downstream.write_outcome(failure, language=language, outcome_format=form)
        except CallerDisconnectedError:
            return downstream.abort()


def _classify(exchange: Exchange, target: RequestTarget) -> Interaction:
    interaction = classify(exchange.method, target.path.rstrip("?"))
    if target.query:
        exchange.query_params = query_names(target.query)
    _record_interaction(exchange, interaction)
    if interaction.code == "smart-configuration":
        # The platform's document would direct callers that use no OAuth to the SSO.
        raise GatewayError(errors.UNKNOWN_PATH)
    return interaction


def _record_interaction(exchange: Exchange, interaction: Interaction) -> Interaction:
    exchange.interaction = interaction.code
    exchange.resource = interaction.resource
    exchange.resource_id = interaction.resource_id
    return interaction
