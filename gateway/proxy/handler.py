"""The request path, top to bottom: what happens to every request, and nothing else.

Each step is one call that returns a value. What happened is noted on the `Exchange`, which is read
once at the end, whatever the end was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from gateway import errors
from gateway.errors import GatewayError, Reason
from gateway.exchange import Exchange
from gateway.fhir.interaction import Interaction, classify, query_names
from gateway.fhir.outcome import choose_language, wants_xml
from gateway.oauth.token import Token
from gateway.proxy import strict
from gateway.proxy.admission import Admission
from gateway.proxy.answer import Answer
from gateway.proxy.body import CallerGone, RequestBody
from gateway.proxy.callers import ANONYMOUS, Caller, Callers
from gateway.proxy.coding import BrokenCoding
from gateway.proxy.composing import Composer, form_parameters, search_parameters, watch_bundle
from gateway.proxy.connection import Broken
from gateway.proxy.examine import examine
from gateway.proxy.forward import Sender, TokenSource
from gateway.proxy.guarding import SearchGuard
from gateway.proxy.guests import Guest
from gateway.proxy.headers import RequestHeader, read_request
from gateway.proxy.incoming import Answered, IncomingRequest
from gateway.proxy.listener import ListenLimits
from gateway.proxy.queueing import Asked, Queueing
from gateway.proxy.relay import CallerSide, explain, give, pass_on
from gateway.proxy.replies import Own
from gateway.proxy.rewriting import Rewriting
from gateway.proxy.target import Target, resolve
from gateway.proxy.upstream import broken

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings that the request path reads; times are seconds, sizes bytes.

    `base_path` is the callers' prefix, without a final slash.
    """

    base_path: str
    default_language: str
    listen: ListenLimits
    reader_stall: float


@dataclass(frozen=True, slots=True)
class Clocks:
    """`monotonic` for durations, `wall` for timestamps; seconds both."""

    monotonic: Callable[[], float]
    wall: Callable[[], float]


@dataclass(frozen=True, slots=True)
class Collaborators:
    """What the request path works with; `account` gets every exchange at its end."""

    admission: Admission
    callers: Callers
    tokens: TokenSource
    forwarder: Sender
    rewriting: Rewriting
    composer: Composer
    guard: SearchGuard | None
    account: Callable[[Exchange], None] = field(repr=False)
    clocks: Clocks = field(repr=False)
    queueing: Queueing | None = None


class Handler:
    """Serves requests, one call of `handle` each."""

    def __init__(self, rules: Rules, collaborators: Collaborators) -> None:
        self._rules = rules
        self._admission = collaborators.admission
        self._callers = collaborators.callers
        self._tokens = collaborators.tokens
        self._forwarder = collaborators.forwarder
        self._account = collaborators.account
        self._rewriting = collaborators.rewriting
        self._composer = collaborators.composer
        self._guard = collaborators.guard
        queueing = collaborators.queueing
        # Without an outbox nothing of it is in any request's way.
        self._bring = self._send if queueing is None else partial(queueing.bring, self._send)
        self._unbound = _unchanged if queueing is None else queueing.unbound
        self._keep = _not_kept if queueing is None else queueing.keep
        self._monotonic = collaborators.clocks.monotonic
        self._wall = collaborators.clocks.wall

    async def handle(self, request: IncomingRequest, guest: Guest | None = None) -> Answered:
        """Answer one request, and account for it; a `guest` was asked for its name already."""
        message = request.message
        header = read_request(message.raw_headers)
        exchange = self._begin(request, header)
        side = self._side(request, guest)
        body: RequestBody | None = None
        admitted: Caller | None = None
        try:
            strict.check(message, header, max_header_bytes=self._rules.listen.all_header_bytes)
            target = resolve(message.path, self._rules.base_path)
            caller = self._identify(exchange, request, header, guest)
            what = _classify(exchange, target)
            caller = self._unbound(caller, target)
            if what.code != "transaction":
                caller.permissions.require(what, exchange.query_params)
            await self._admission.admit(caller, fresh=request.fresh)
            admitted = caller
            links = self._rewriting.translation(header, request.scheme)
            body = self._composer.body(request, header, side)
            if body is not None:
                self._keep(caller, what, header, body)
                what = _note(exchange, await self._composer.read_ahead(header, body, what, links))
            # Of a Bundle, and of a search by POST, only the body tells what it is.
            caller.permissions.require(what, form_parameters(caller, what, header, body))
            watch_bundle(body, header, what, caller.permissions)
            if what.safe:
                # Nobody waits for a read whose caller left; a write takes its course.
                request.connection.notify_lost(_canceller())
            way = request.scheme, side.is_gone
            asked = Asked(exchange, caller, what, target, header, links, body, *way)
            answer = await self._bring(asked)
            try:
                examine(answer, what, header.text(b"accept"))
                warning = await self._judge(answer, what, target, header, body)
                passage = links.of_answer(answer, what, header, warning)
                return await pass_on(side, exchange, answer, passage)
            finally:
                answer.close()
        except asyncio.CancelledError:
            exchange.aborted = True
            side.abort()
            raise
        except Exception as error:
            return await self._conclude(exchange, side, header, _query(message.path), error)
        finally:
            request.connection.notify_lost(None)
            if admitted is not None:
                self._admission.leave(admitted)
            self._end(exchange, body)

    async def answer(self, request: IncomingRequest, own: Own) -> Answered:
        """Answer a request that is none for the platform, and account for it."""
        message = request.message
        header = read_request(message.raw_headers)
        exchange = self._begin(request, header)
        side = self._side(request, own)
        admitted = False
        try:
            exchange.remote = self._callers.origin(request.connection.peer, header).address
            strict.check(message, header, max_header_bytes=self._rules.listen.all_header_bytes)
            await self._admission.admit(ANONYMOUS, fresh=request.fresh)
            admitted = True
            return await give(side, exchange, await own.respond(exchange))
        except asyncio.CancelledError:
            exchange.aborted = True
            side.abort()
            raise
        except Exception as error:
            return await self._conclude(exchange, side, header, "", error)
        finally:
            if admitted:
                self._admission.leave(ANONYMOUS)
            self._end(exchange, None)

    async def refuse(self, request: IncomingRequest, error: GatewayError) -> Answered:
        """Answer a message that could not be parsed, and account for it."""
        header = read_request(())
        exchange = self._begin(request, header)
        side = self._side(request)
        try:
            return await self._conclude(exchange, side, header, "", error)
        finally:
            self._end(exchange, None)

    def _identify(
        self,
        exchange: Exchange,
        request: IncomingRequest,
        header: RequestHeader,
        guest: Guest | None,
    ) -> Caller:
        peer = self._callers.origin(request.connection.peer, header)
        exchange.remote = peer.address
        caller = (guest or self._callers).identify(peer, header)
        _name(exchange, caller)
        return caller

    async def _send(self, asked: Asked) -> Answer:
        """The platform's answer."""
        exchange, credential = asked.exchange, asked.caller.credential
        token = self._tokens.current(credential) or await self._obtain(exchange, credential)
        addressed = asked.target, asked.header, asked.links
        outgoing = await self._composer.compose(exchange, addressed, asked.body, asked.what)
        with _Stopwatch(exchange, self._monotonic):
            return await self._forwarder.send(exchange, outgoing, credential, token)

    async def _obtain(self, exchange: Exchange, credential: str) -> Token:
        began = self._monotonic()
        try:
            return await self._tokens.obtain(credential)
        finally:
            exchange.token_wait = (began, self._monotonic())

    def _begin(self, request: IncomingRequest, header: RequestHeader) -> Exchange:
        self._admission.inflight += 1
        return Exchange(
            request_id=header.request_id,
            started_at=self._wall(),
            started=self._monotonic(),
            method=request.message.method,
            remote=request.remote,
            traceparent=header.text(b"traceparent"),
        )

    def _end(self, exchange: Exchange, body: RequestBody | None) -> None:
        self._admission.inflight -= 1
        exchange.duration = self._monotonic() - exchange.started
        if body is not None:
            exchange.request_bytes = body.received
            body.let_go()
        self._account(exchange)

    def _side(self, request: IncomingRequest, given: Guest | Own | None = None) -> CallerSide:
        side = CallerSide(
            request, stall=self._rules.reader_stall, closing=self._admission.is_draining
        )
        if given is not None:
            side.lines, side.over = given.lines, given.over
        return side

    async def _judge(
        self,
        answer: Answer,
        what: Interaction,
        target: Target,
        header: RequestHeader,
        body: RequestBody | None,
    ) -> bytes | None:
        """What the search guard has to say to the caller."""
        if self._guard is None or not what.is_search:
            return None
        return await self._guard.judge(answer, what, search_parameters(target, header, body))

    async def _conclude(
        self,
        exchange: Exchange,
        side: CallerSide,
        header: RequestHeader,
        query: str,
        error: Exception,
    ) -> Answered:
        """Turn a failure into an outcome, or into an abort once the answer has begun."""
        if isinstance(error, CallerGone):
            return _abort(exchange, side)
        failure = _as_gateway_error(error)
        exchange.reason = failure.reason.code
        _log.log(_level(failure.reason), "%s (request %s)", failure, exchange.request_id)
        if side.started:
            return _abort(exchange, side)
        if side.over is not None and failure.reason is errors.CALLER_UNAUTHENTICATED:
            side.lines = side.over.lines
            return await give(side, exchange, await side.over.respond(exchange))
        accept_language = header.text(b"accept-language")
        language = choose_language(accept_language, self._rules.default_language)
        xml = wants_xml(query, header.text(b"accept"))
        try:
            return await explain(side, exchange, failure, language=language, xml=xml)
        except CallerGone:
            return _abort(exchange, side)


def _unchanged(caller: Caller, _target: Target) -> Caller:
    return caller


def _not_kept(_caller: Caller, _what: Interaction, _header: RequestHeader, _: RequestBody) -> None:
    """Nothing is queued."""


class _Stopwatch:
    """Notes how long the platform took, also when it failed."""

    __slots__ = ("_clock", "_exchange", "_started")

    def __init__(self, exchange: Exchange, clock: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._started = 0.0

    def __enter__(self) -> None:
        self._started = self._clock()

    def __exit__(self, *_: object) -> None:
        if self._exchange.attempts:
            self._exchange.upstream_duration = self._clock() - self._started


def _name(exchange: Exchange, caller: Caller) -> None:
    exchange.caller, exchange.credential = caller.name, caller.credential
    exchange.user = caller.user


def _classify(exchange: Exchange, target: Target) -> Interaction:
    what = classify(exchange.method, target.path.rstrip("?"), target.query)
    if target.query:
        exchange.query_params = query_names(target.query)
    _note(exchange, what)
    if what.code == "smart-configuration":
        # The platform's document would send callers of plain HTTP to the SSO.
        raise GatewayError(errors.UNKNOWN_PATH)
    return what


def _note(exchange: Exchange, what: Interaction) -> Interaction:
    exchange.interaction = what.code
    exchange.resource = what.resource
    exchange.resource_id = what.resource_id
    return what


def _level(reason: Reason) -> int:
    """How loud the log is: callers' mistakes are theirs, outages are the operator's business."""
    if reason in _OPERATORS:
        return logging.ERROR
    return logging.WARNING if reason.status >= 500 else logging.INFO


# Nothing helps against these but somebody who acts.
_OPERATORS: Final = frozenset(
    (errors.TOKEN_REFUSED, errors.TOKEN_REJECTED, errors.UPSTREAM_TLS, errors.UPSTREAM_REDIRECT)
)


def _query(raw_target: str) -> str:
    return raw_target.partition("?")[2]


def _canceller() -> Callable[[], None]:
    task = asyncio.current_task()

    def cancel() -> None:
        if task is not None:
            task.cancel()

    return cancel


def _abort(exchange: Exchange, side: CallerSide) -> Answered:
    exchange.aborted = True
    side.abort()
    return side.done()


def _as_gateway_error(error: Exception) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, Broken):
        return broken(error)
    if isinstance(error, BrokenCoding):
        what = "the platform's answer is not in the Content-Encoding that it names"
        return GatewayError(errors.UPSTREAM_FAILED, what)
    # The one place that turns a bug into an answer. The message stays out: it could quote data.
    _log.error("internal error", exc_info=error)
    return GatewayError(errors.INTERNAL, type(error).__name__, close=True)
