"""The outbox on the request path: a write that cannot be delivered now is enqueued, with a 202.

A write that may be queued is forwarded directly while the platform can be reached and no entry with
one of its ordering keys is waiting. The rest of `gateway.outbox` delivers what was enqueued.

`LastWrites` records when the resources of callers were last written. When a write fails late, this
shows whether a newer write of the same resource was sent or enqueued meanwhile.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway import errors, field_values
from gateway.errors import GatewayError
from gateway.fhir.content_negotiation import wants_xml
from gateway.i18n import choose_language
from gateway.outbox.async_status import (
    OUTBOX_PATH,
    OutboxApi,
    ResponseFormat,
    entry_outcome,
)
from gateway.outbox.attempt_result import UNKNOWN_EFFECT_REASONS, UNREACHABLE_STATUSES
from gateway.outbox.entry import ALL_KEYS, RecoveryMode
from gateway.outbox.store.store_types import OutboxFullError, OutboxUnavailableError
from gateway.outbox.write_classification import (
    WRITES,
    WriteClassification,
    WriteClassifier,
    WriteNotClassifiedError,
    build_entry,
    lines_without_async,
    prefers_async,
)
from gateway.pipeline.permissions import ALLOW_ALL
from gateway.pipeline.request_body import CallerDisconnectedError, MemoryBudget
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.inbound_settings import ListenSettings
    from gateway.config.outbound_settings import FhirSettings
    from gateway.fhir.interaction import Interaction
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.headers import RequestHeader
    from gateway.http.request_target import RequestTarget
    from gateway.outbox.store.outbox_store import OutboxStore
    from gateway.pipeline.body_worker import SerialExecutor
    from gateway.pipeline.callers import Caller
    from gateway.pipeline.request import RequestContext
    from gateway.pipeline.request_composer import RequestComposer

_log = get_logger(__name__)

# Resources whose last writes are known one by one: more than are written while one write fails.
_MAX_RESOURCES: Final = 20_000


class LastWrites:
    """Moments of the monotonic clock by caller and resource.

    Of a resource that was forgotten, because many others were written since, it is known only when
    the last one of those was written: an earlier write of it may count as newer than it is.
    """

    def __init__(self) -> None:
        self._moments: dict[tuple[str, str], float] = {}
        self._forgotten_until = -math.inf

    def record(self, caller: str, resource: str, moment: float) -> None:
        """Record that a write which arrived at `moment` is sent or enqueued."""
        key = caller, resource
        # A write that arrived earlier may be recorded later.
        self._moments[key] = max(moment, self._moments.pop(key, moment))
        if len(self._moments) > _MAX_RESOURCES:
            forgotten = self._moments.pop(next(iter(self._moments)))
            self._forgotten_until = max(self._forgotten_until, forgotten)

    def has_newer(self, caller: str, resource: str, moment: float) -> bool:
        """Return whether a write was recorded that arrived after `moment`."""
        return self._moments.get((caller, resource), self._forgotten_until) > moment


# The platform or the SSO cannot be reached or does not accept the gateway, and the write was not
# delivered.
_UNSENT_REASONS: Final = frozenset(
    (
        errors.UPSTREAM_UNREACHABLE,
        errors.UPSTREAM_BUSY,
        errors.UPSTREAM_TLS,
        errors.CIRCUIT_OPEN,
        errors.SSO_UNAVAILABLE,
        errors.TOKEN_REFUSED,
        errors.TOKEN_REJECTED,
    )
)
_QUEUEABLE_REASONS: Final = _UNSENT_REASONS | UNKNOWN_EFFECT_REASONS | {errors.CONDITION_UNKNOWN}
_SERVICE_UNAVAILABLE: Final = 503
_RETRY_AFTER: Final = 60.0


class OutboxWriteQueue:
    """Stands before the `forwarder`: it enqueues the writes which that cannot deliver.

    The outbox's own paths are served by `api`. `on_request` is called for each request.
    `has_several_callers`: more than one caller may queue. `body_budget` is the memory budget of
    large bodies while they are retained. `last_writes` are those of this gateway, under earlier
    settings too. All bodies are parsed by the `serial_executor`. `clock` is monotonic.
    """

    def __init__(
        self,
        *,
        store: OutboxStore,
        api: OutboxApi,
        forwarder: RequestComposer,
        listen: ListenSettings,
        fhir: FhirSettings,
        has_several_callers: bool,
        body_budget: MemoryBudget,
        last_writes: LastWrites,
        on_request: Callable[[], None],
        serial_executor: SerialExecutor,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._api = api
        self._forwarder = forwarder
        self._base_path = listen.base_path
        self._public_url = listen.public_url
        self._default_language = fhir.default_language
        self._has_several_callers = has_several_callers
        self._body_budget = body_budget
        self._last_writes = last_writes
        self._on_request = on_request
        self._serial_executor = serial_executor
        self._clock = clock
        self._fail_fast_until = 0.0
        self._fail_fast_reason = errors.UPSTREAM_UNREACHABLE

    def route(
        self, context: RequestContext
    ) -> Callable[[RequestContext], Awaitable[UpstreamResponse]]:
        """Return what gets the response to this request: outbox, platform, or both."""
        self._on_request()
        if _is_outbox_path(context.target):
            # A caller may access its own entries whatever else it is allowed.
            context.caller = replace(context.caller, permissions=ALLOW_ALL)
            return self._answer_about_entries
        if context.interaction.code in WRITES and _may_queue(context.caller, context.header):
            context.queue_budget = self._body_budget
            return self._forward_or_enqueue
        return self._forwarder.forward

    def _answer_about_entries(self, context: RequestContext) -> Awaitable[UpstreamResponse]:
        return self._api.handle(
            context, self._gateway_base(context), self._response_format(context)
        )

    async def _forward_or_enqueue(self, context: RequestContext) -> UpstreamResponse:
        if context.interaction.code not in WRITES:
            # Its body shows that it is no Bundle of requests.
            return await self._forwarder.forward(context)
        # The outbox decides whether the caller waits: a 202 of a platform that supports the same
        # preference would mean something else.
        context.field_lines = lines_without_async(context.field_lines)
        classifier = WriteClassifier(context, self._serial_executor)
        if not self._store.is_known_empty():
            queued_response = await self._enqueue_if_blocked(classifier)
            if queued_response is not None:
                return queued_response
        # Recorded before it is sent: an older write may fail, and look for newer ones, meanwhile.
        self._record_last_write(context)
        started_at = self._clock()
        try:
            response = await self._forwarder.forward(context)
        except GatewayError as error:
            if error.reason in _UNSENT_REASONS:
                self._start_fail_fast(started_at, error)
            return await self._enqueue_after_error(classifier, error)
        if response.status in UNREACHABLE_STATUSES:
            return await self._enqueue_after_status(classifier, response)
        return response

    def _start_fail_fast(self, started_at: float, error: GatewayError) -> None:
        """Enqueue later writes at once, without an attempt.

        This lasts for as long as the attempt that began at `started_at` took to fail: callers do
        not all wait for the same timeout, and a refused connection delays nothing.
        """
        now = self._clock()
        self._fail_fast_reason = error.reason
        self._fail_fast_until = now + (now - started_at)

    async def _enqueue_if_blocked(self, classifier: WriteClassifier) -> UpstreamResponse | None:
        """Enqueue a write that must not overtake earlier ones, or would only meet the same outage.

        Returns None where the write is to be forwarded.
        """
        context = classifier.context
        try:
            classification = await classifier.classification()
        except WriteNotClassifiedError:
            if await self._is_blocked(context, ALL_KEYS):
                raise _outbox_full_error(
                    "no memory is left to look what it would overtake"
                ) from None
            return None
        if classification is None:
            return None
        if await self._is_blocked(context, classification.ordering_keys):
            return await self._enqueue(
                context, classification, _outbox_full_error("the outbox is full")
            )
        if self._clock() >= self._fail_fast_until:
            return None
        error = GatewayError(self._fail_fast_reason, "as just before", retry_after=_RETRY_AFTER)
        return await self._enqueue(context, classification, error)

    async def _is_blocked(self, context: RequestContext, ordering_keys: frozenset[str]) -> bool:
        try:
            return await self._store.is_blocked(context.caller.name, ordering_keys)
        except OutboxUnavailableError:
            # Without the outbox it is unknown whether this write would overtake an earlier one.
            raise _outbox_full_error("the outbox cannot be reached", "queue-away") from None

    async def _enqueue_after_error(
        self, classifier: WriteClassifier, error: GatewayError
    ) -> UpstreamResponse:
        """Enqueue a write whose forwarding failed, or raise `error` where it must not be queued."""
        context = classifier.context
        in_doubt = error.reason in UNKNOWN_EFFECT_REASONS and context.exchange.attempts > 0
        if not in_doubt and error.reason not in _QUEUEABLE_REASONS:
            raise error
        try:
            classification = await classifier.classification()
        except WriteNotClassifiedError:
            raise error from None
        if classification is None or (in_doubt and classification.recovery is RecoveryMode.HOLD):
            raise error
        return await self._enqueue(context, classification, error, in_doubt=in_doubt)

    async def _enqueue_after_status(
        self, classifier: WriteClassifier, response: UpstreamResponse
    ) -> UpstreamResponse:
        """Enqueue a write after a 502, 503 or 504.

        Returns `response` where the write must not be queued.
        """
        # With a 502 or 504 the platform's proxy reports that its own connection failed.
        is_busy = response.status == _SERVICE_UNAVAILABLE
        error = GatewayError(errors.UPSTREAM_BUSY if is_busy else errors.UPSTREAM_FAILED)
        try:
            queued_response = await self._enqueue_after_error(classifier, error)
        except BaseException as failure:
            # A full outbox says what the platform's 503 cannot: the gateway has no copy either.
            if isinstance(failure, GatewayError) and failure.reason is not errors.OUTBOX_FULL:
                return response
            response.close()
            raise
        response.close()
        return queued_response

    async def _enqueue(
        self,
        context: RequestContext,
        classification: WriteClassification,
        error: GatewayError,
        *,
        in_doubt: bool = False,
    ) -> UpstreamResponse:
        """Enqueue the write and return a 202.

        `error` is the reason for that, and is raised where the write cannot be enqueued.
        """
        base = self._gateway_base(context)
        cause = "" if error.reason is errors.OUTBOX_FULL else error.reason.code
        new_entry = await build_entry(context, classification, cause=cause, in_doubt=in_doubt)

        def confirm() -> None:
            if context.downstream.is_closed():
                # The caller would not receive the 202, would send the write again, and it would be
                # stored twice.
                raise CallerDisconnectedError
            if context.request.connection.is_half_closed or self._is_superseded(context):
                # Half-closed: the caller may be gone as above, or may still read this error.
                # Superseded: the entry would undo a newer write of the same resource.
                raise error
            # Of other writes of the resource that fail later, newer ones are enqueued after this
            # one and older ones not at all.
            self._record_last_write(context)

        try:
            entry = await self._store.enqueue(new_entry, confirm, shared=self._has_several_callers)
        except OutboxFullError as full:
            # A write that may have taken effect must not be reported as not accepted.
            raise error if in_doubt else _outbox_full_error(str(full)) from None
        except OutboxUnavailableError:
            raise error from None
        _log.info(
            "kept in the outbox as %s", entry.id, entry=entry.id, **context.exchange.log_fields()
        )
        response_format = self._response_format(context)
        location = ("Content-Location", f"{base}{OUTBOX_PATH}/{entry.id}")
        return self._api.respond(
            202,
            entry_outcome("queued", response_format),
            xml=response_format.xml,
            fields=(location,),
        )

    def _record_last_write(self, context: RequestContext) -> None:
        resource = _resource_key(context.interaction)
        if resource is not None:
            self._last_writes.record(
                context.caller.name, resource, context.exchange.started_monotonic
            )

    def _is_superseded(self, context: RequestContext) -> bool:
        resource = _resource_key(context.interaction)
        started = context.exchange.started_monotonic
        return resource is not None and self._last_writes.has_newer(
            context.caller.name, resource, started
        )

    def _gateway_base(self, context: RequestContext) -> str:
        """Return the gateway's base URL as this caller knows it.

        It is only the path where the Host field is missing or invalid.
        """
        if self._public_url is not None:
            return self._public_url.rstrip("/")
        host = context.header.text(b"host") or ""
        origin = (
            f"{context.request.scheme}://{host}"
            if field_values.is_host_field(host.encode())
            else ""
        )
        return origin + self._base_path

    def _response_format(self, context: RequestContext) -> ResponseFormat:
        language = choose_language(context.header.text(b"accept-language"), self._default_language)
        return ResponseFormat(
            language, wants_xml(context.target.query, context.header.text(b"accept"))
        )


def _may_queue(caller: Caller, header: RequestHeader) -> bool:
    """Return whether a write of this caller with this header may be queued."""
    if caller.outbox == "off" or caller.user is not None:
        return False
    if caller.outbox == "always":
        return True
    prefer = header.values.get(b"prefer")
    return prefer is not None and prefers_async(prefer)


def _resource_key(interaction: Interaction) -> str | None:
    return (
        None
        if interaction.resource_id is None
        else f"{interaction.resource}/{interaction.resource_id}"
    )


def _is_outbox_path(target: RequestTarget) -> bool:
    path = target.path
    return path.startswith(OUTBOX_PATH) and path[len(OUTBOX_PATH) : len(OUTBOX_PATH) + 1] in (
        "",
        "/",
        "?",
    )


def _outbox_full_error(detail: str, advice: str = "") -> GatewayError:
    return GatewayError(errors.OUTBOX_FULL, detail, retry_after=_RETRY_AFTER, advice_key=advice)
