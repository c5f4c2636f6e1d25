"""The request path, top to bottom: what happens to every request, and nothing else.

Each step is one call that returns a value. What happened is noted on the `Exchange`, which is read
once at the end, whatever the end was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from gateway import errors
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.fhir.interaction import Interaction, classify, query_names
from gateway.fhir.outcome import choose_language, wants_xml
from gateway.http.client.response import UpstreamResponse
from gateway.http.headers import FieldRuleCache, RequestHeader, parse_request_fields, request_id_of
from gateway.http.server import validation
from gateway.http.server.connection import IncomingRequest
from gateway.http.server.messages import ConnectionDisposition
from gateway.http.server.reader import ListenLimits
from gateway.http.slow_readers import SlowReaders
from gateway.http.target import RequestTarget, resolve_target
from gateway.oauth.token import AccessToken
from gateway.pipeline.admission import Admission
from gateway.pipeline.attempts import RequestForwarder, TokenProvider
from gateway.pipeline.caller_memo import CallerContext, cached_context, effective_header
from gateway.pipeline.caller_side import DownstreamWriter
from gateway.pipeline.callers import ANONYMOUS, AuthResult, Caller, CallerRegistry
from gateway.pipeline.condition_guard import ConditionGuard
from gateway.pipeline.failures import log_level, to_gateway_error
from gateway.pipeline.link_translation import LinkTranslatorFactory
from gateway.pipeline.outgoing import RequestComposer, guard_bundle_type, search_parameters
from gateway.pipeline.own_replies import LocalResponder
from gateway.pipeline.permission_check import PermissionCheck
from gateway.pipeline.request_body import CallerDisconnectedError, RequestBody
from gateway.pipeline.request_context import RequestContext
from gateway.pipeline.response_check import check_response
from gateway.pipeline.response_writer import forward_response, write_local_response, write_outcome
from gateway.pipeline.search_guard import SearchGuard
from gateway.pipeline.strangers import UnidentifiedLimiter
from gateway.pipeline.upstream import BODILESS_METHODS
from gateway.pipeline.write_queue import WriteQueue
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HandlerSettings:
    """The settings that the request path reads; times are seconds, sizes bytes.

    `base_path` is the callers' prefix, without a final slash; `fields` says which fields go on.
    """

    base_path: str
    default_language: str
    listen: ListenLimits
    fields: FieldRuleCache


@dataclass(frozen=True, slots=True)
class Clocks:
    """`monotonic` for durations, `wall` for timestamps; seconds both."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True)
class HandlerDependencies:
    """What the request path works with; `account` gets every exchange at its end."""

    admission: Admission
    callers: CallerRegistry
    permissions: PermissionCheck
    unidentified_limiter: UnidentifiedLimiter
    tokens: TokenProvider
    forwarder: RequestForwarder
    link_translators: LinkTranslatorFactory
    composer: RequestComposer
    readers: SlowReaders
    search_guard: SearchGuard | None
    condition_guard: ConditionGuard | None
    account: Callable[[Exchange], None] = field(repr=False)
    clocks: Clocks = field(repr=False)
    write_queue: WriteQueue | None = None


class Handler:
    """Serves requests, one call of `handle` each."""

    def __init__(self, rules: HandlerSettings, collaborators: HandlerDependencies) -> None:
        self._rules = rules
        self._listen = rules.listen
        self._admission = collaborators.admission
        self._callers = collaborators.callers
        self._permissions = collaborators.permissions
        self._unidentified_limiter = collaborators.unidentified_limiter
        self._tokens = collaborators.tokens
        self._forwarder = collaborators.forwarder
        self._account = collaborators.account
        self._link_translators = collaborators.link_translators
        self._composer = collaborators.composer
        self._readers = collaborators.readers
        self._search_guard = collaborators.search_guard
        self._condition_guard = collaborators.condition_guard
        self._write_queue = collaborators.write_queue
        self._monotonic = collaborators.clocks.monotonic
        self._wall = collaborators.clocks.wall

    async def handle(
        self, request: IncomingRequest, guest: AuthResult | None = None
    ) -> ConnectionDisposition:
        """Answer one request, and account for it; a `guest` was asked for its name already."""
        message, connection = request.message, request.connection
        memo = cached_context(connection.cached_context, message, self) if guest is None else None
        header = effective_header(request, self._rules.fields) if memo is None else memo.header
        exchange = self._start_exchange(request, header)
        side = self._downstream_writer(request, guest)
        body: RequestBody | None = None
        admitted: Caller | None = None
        try:
            if memo is None:
                validation.check_message(
                    message, header, max_header_bytes=self._listen.all_header_bytes
                )
            validation.check_method(exchange.method)
            target = resolve_target(message.path, self._rules.base_path)
            memo = memo or self._identify_caller(exchange, request, header, guest)
            caller = self._record_caller(exchange, memo, target)
            interaction = _classify(exchange, target)
            self._permissions.require(caller, exchange.method, interaction, target, header)
            if not self._admission.try_admit(caller, fresh=not connection.is_reused):
                await self._admission.wait_for_slot(caller)
            admitted = caller
            body = self._composer.request_body(request, header, side)
            if body is not None:
                interaction = await self._inspect_body(body, exchange, caller, interaction, memo)
            elif interaction.code == "transaction":
                caller.permissions.require(interaction)
            # Nobody waits for a read whose caller left; a write takes its course.
            connection.set_cancel_on_disconnect(
                exchange if interaction.is_safe else None, self._readers
            )
            sent = None if exchange.method in BODILESS_METHODS else body
            asked = RequestContext(exchange, caller, interaction, target, memo, sent, side)
            if self._condition_guard is not None and not interaction.is_safe:
                await self._condition_guard.check_request(asked)
            answer = await self._forward_or_queue(asked)
            try:
                query = search_parameters(asked)
                unclear = check_response(
                    answer, interaction, memo.accept, query, untyped=memo.has_untyped_body
                )
                warning = (
                    await self._guard_warning(answer, asked, query) if asked.is_guarded else None
                )
                plan = memo.link_translator.response_plan(
                    answer, interaction, header, warning, unclear
                )
                return await forward_response(side, exchange, answer, plan)
            finally:
                answer.close()
        except asyncio.CancelledError:
            exchange.is_aborted = True
            side.abort()
            raise
        except Exception as error:
            told = self._apply_unidentified_limit(request, header, exchange, guest, error)
            return await self._send_error(exchange, side, header, message.path, told)
        finally:
            self._end_exchange(exchange, body, admitted)

    async def handle_local(
        self, request: IncomingRequest, own: LocalResponder
    ) -> ConnectionDisposition:
        """Answer a request that is none for the platform, and account for it."""
        message = request.message
        header = parse_request_fields(message.raw_headers)
        exchange = self._start_exchange(request, header)
        side = self._downstream_writer(request, own)
        admitted = False
        try:
            exchange.remote = self._callers.resolve_peer(request.connection.peer, header).address
            validation.check_message(
                message, header, max_header_bytes=self._listen.all_header_bytes
            )
            if not self._admission.try_admit(ANONYMOUS, fresh=request.is_first_request):
                await self._admission.wait_for_slot(ANONYMOUS)
            admitted = True
            return await write_local_response(side, exchange, await own.respond(exchange))
        except asyncio.CancelledError:
            exchange.is_aborted = True
            side.abort()
            raise
        except Exception as error:
            if isinstance(error, GatewayError) and error.reason is not errors.RATE_LIMITED:
                limiter = self._unidentified_limiter
                exchange.is_audit_skipped = limiter.exceeds_limit(exchange.remote)
            return await self._send_error(exchange, side, header, "", error)
        finally:
            if admitted:
                self._admission.release(ANONYMOUS)
            # The pages have their own limit: nobody needs to stand behind what is beyond it.
            exchange.is_audit_skipped |= exchange.reason == errors.RATE_LIMITED.code
            self._end_exchange(exchange, None)

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Answer a message that could not be parsed, and account for it."""
        header = parse_request_fields(())
        exchange = self._start_exchange(request, header)
        side = self._downstream_writer(request)
        try:
            told = self._apply_unidentified_limit(request, header, exchange, None, error)
            return await self._send_error(exchange, side, header, "", told)
        finally:
            self._end_exchange(exchange, None)

    def _identify_caller(
        self,
        exchange: Exchange,
        request: IncomingRequest,
        header: RequestHeader,
        guest: AuthResult | None,
    ) -> CallerContext:
        """Find out who calls, and what translates for him."""
        connection = request.connection
        peer = self._callers.resolve_peer(connection.peer, header)
        exchange.remote = peer.address
        memo = CallerContext(
            request,
            header,
            self,
            caller=(guest or self._callers).identify(peer, header),
            remote=peer.address,
            links=self._link_translators.translator_for(header, request.scheme),
        )
        memo.may_queue_writes = (
            self._write_queue is not None
            and self._write_queue.accepts_writes_of(memo.caller, header)
        )
        connection.cache_context(memo if guest is None and memo.is_cacheable else None)
        return memo

    def _record_caller(
        self, exchange: Exchange, memo: CallerContext, target: RequestTarget
    ) -> Caller:
        """The caller, noted."""
        caller = memo.caller
        exchange.remote = memo.remote
        exchange.caller, exchange.credential = caller.name, caller.credential
        exchange.user = caller.user
        if (said := memo.asserted_identity) is not None:
            exchange.user, exchange.is_user_asserted = said.user, said.user is not None
            exchange.purpose = said.purpose
        if self._write_queue is None:
            return caller
        return self._write_queue.allow_own_entries(caller, target)

    async def _inspect_body(
        self,
        body: RequestBody,
        exchange: Exchange,
        caller: Caller,
        interaction: Interaction,
        memo: CallerContext,
    ) -> Interaction:
        """Of a Bundle, and of a search by POST, only the body tells what it is.

        Raises `GatewayError` caller-forbidden.
        """
        header, permissions = memo.header, caller.permissions
        if exchange.method in BODILESS_METHODS:
            await body.discard()
            return interaction
        memo.name_content(interaction)
        if self._write_queue is not None:
            self._write_queue.retain_body(memo, interaction, body)
        told = await self._composer.classify_by_body(
            header, body, interaction, memo.link_translator
        )
        if told.is_search and permissions.is_restricted:
            permissions.require_form(header, body.buffered())
        elif interaction.code == "transaction":
            permissions.require(_record_interaction(exchange, told))
        guard_bundle_type(body, header, told, permissions)
        return told

    def _forward_or_queue(self, asked: RequestContext) -> Awaitable[UpstreamResponse]:
        """The platform's answer, or the outbox's where there is one."""
        if self._write_queue is None:
            return self._forward(asked)
        return self._write_queue.forward_or_queue(self._forward, asked)

    async def _forward(self, asked: RequestContext) -> UpstreamResponse:
        """The platform's answer."""
        exchange, credential = asked.exchange, asked.caller.credential
        token = self._tokens.current(credential) or await self._wait_for_token(exchange, credential)
        misses_version = self._composer.needs_if_match(asked)
        version = await self._composer.fetch_current_version(asked) if misses_version else None
        outgoing = self._composer.compose(asked, version)
        began = self._monotonic()
        try:
            answer = await self._forwarder.send(exchange, outgoing, credential, token)
        finally:
            if exchange.attempts:
                exchange.upstream_duration = self._monotonic() - began
        self._permissions.note(asked, answer)
        return answer

    async def _wait_for_token(self, exchange: Exchange, credential: str) -> AccessToken:
        began = self._monotonic()
        try:
            return await self._tokens.wait_for_token(credential)
        finally:
            exchange.token_wait = (began, self._monotonic())

    def _apply_unidentified_limit(
        self,
        request: IncomingRequest,
        header: RequestHeader,
        exchange: Exchange,
        guest: AuthResult | None,
        error: Exception,
    ) -> Exception:
        """What to tell of a failure: a stranger's may be one too many."""
        if exchange.credential is None and isinstance(error, GatewayError):
            return self._unidentified_limiter.limit_error(request, header, exchange, guest, error)
        return error

    def _start_exchange(self, request: IncomingRequest, header: RequestHeader) -> Exchange:
        self._admission.exchange_started()
        return Exchange(
            request_id=request_id_of(header),
            started_at=self._wall(),
            started_monotonic=self._monotonic(),
            method=request.message.method,
            remote=request.remote,
            traceparent=header.text(b"traceparent"),
        )

    def _end_exchange(
        self, exchange: Exchange, body: RequestBody | None, admitted: Caller | None = None
    ) -> None:
        if admitted is not None:
            self._admission.release(admitted)
        self._admission.exchange_ended()
        exchange.duration = self._monotonic() - exchange.started_monotonic
        if body is not None:
            exchange.request_bytes = body.received_bytes
            body.release()
        self._account(exchange)

    def _downstream_writer(
        self, request: IncomingRequest, given: AuthResult | LocalResponder | None = None
    ) -> DownstreamWriter:
        stall = self._listen.write_stall_timeout
        if given is None:
            return DownstreamWriter(request, self._admission, stall=stall)
        lines, login_expired = given.extra_field_lines, given.expired_session_responder
        return DownstreamWriter(
            request, self._admission, stall=stall, lines=lines, login_expired=login_expired
        )

    async def _guard_warning(
        self, answer: UpstreamResponse, asked: RequestContext, query: str
    ) -> bytes | None:
        """What the guards have to say to the caller: of a search, or of a write's conditions."""
        if self._condition_guard is not None and asked.conditions is not None:
            return (
                await self._condition_guard.response_warning(asked) if answer.status < 300 else None
            )
        guard = self._search_guard
        return (
            None if guard is None else await guard.check_searchset(answer, asked.type_name, query)
        )

    async def _send_error(
        self,
        exchange: Exchange,
        side: DownstreamWriter,
        header: RequestHeader,
        target: str,
        error: Exception,
    ) -> ConnectionDisposition:
        """Turn a failure into an outcome, or into an abort once the answer has begun."""
        if isinstance(error, CallerDisconnectedError):
            return _abort(exchange, side)
        failure = to_gateway_error(error, exchange)
        exchange.reason = failure.reason.code
        _log.log(log_level(failure.reason), "%s", failure, **exchange.log_fields())
        if side.has_started:
            return _abort(exchange, side)
        if (
            side.expired_session_responder is not None
            and failure.reason is errors.CALLER_UNAUTHENTICATED
        ):
            side.extra_field_lines = side.expired_session_responder.extra_field_lines
            return await write_local_response(
                side, exchange, await side.expired_session_responder.respond(exchange)
            )
        language = choose_language(header.text(b"accept-language"), self._rules.default_language)
        xml = wants_xml(target.partition("?")[2], header.text(b"accept"))
        try:
            return await write_outcome(side, exchange, failure, language=language, xml=xml)
        except CallerDisconnectedError:
            return _abort(exchange, side)


def _classify(exchange: Exchange, target: RequestTarget) -> Interaction:
    interaction = classify(exchange.method, target.path.rstrip("?"), target.query)
    if target.query:
        exchange.query_params = query_names(target.query)
    _record_interaction(exchange, interaction)
    if interaction.code == "smart-configuration":
        # The platform's document would send callers of plain HTTP to the SSO.
        raise GatewayError(errors.UNKNOWN_PATH)
    return interaction


def _record_interaction(exchange: Exchange, interaction: Interaction) -> Interaction:
    exchange.interaction = interaction.code
    exchange.resource = interaction.resource
    exchange.resource_id = interaction.resource_id
    return interaction


def _abort(exchange: Exchange, side: DownstreamWriter) -> ConnectionDisposition:
    exchange.is_aborted = True
    side.abort()
    return side.finish()
