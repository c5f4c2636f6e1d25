"""The sending of queued writes to the platform."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.interaction import Interaction
from gateway.fhir.search_parameters import SearchSupport
from gateway.field_values import parse_retry_after
from gateway.health.evidence import (
    has_failed,
    signal_of_non_fhir,
    signal_of_reason,
    signal_of_status,
)
from gateway.http.client.response_head import UpstreamConnectionError, remove_content_fields
from gateway.http.client.upstream_pool import DELIVERIES
from gateway.http.content_coding import DECODABLE, decode_body
from gateway.outbox.async_status import first_field_value
from gateway.outbox.attempt_result import (
    UNKNOWN_EFFECT_REASONS,
    AttemptResult,
    VerificationStatus,
)
from gateway.outbox.comparison import (
    VerificationQuery,
    combine_results,
    compare_read,
    compare_search,
    names_version,
    verification_queries,
)
from gateway.outbox.entry import (
    FieldLines,
    OutboxEntry,
    QueuedRequest,
    StoredResponse,
    platform_status_note,
)
from gateway.pipeline.platform_client import CapabilityCache, PlatformClient, fetch_etag
from gateway.pipeline.request_body import BufferedBody
from gateway.pipeline.response_checks import buffer_error, check_response
from gateway.pipeline.upstream import BODILESS_METHODS, UpstreamRequest
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.outbound_settings import FhirSettings
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.oauth.tokens import Tokens
    from gateway.pipeline.body_worker import SerialExecutor
    from gateway.pipeline.guards import ConditionGuard

_log = get_logger(__name__)

# Bytes. A longer response is stored without its body: that the write was delivered is what counts.
_MAX_RESPONSE_BYTES: Final = 16 * 1024 * 1024
_MAX_MATCHES: Final = 2
# Seconds for which the first verification waits for the platform's first CapabilityStatement.
_STATEMENT_WAIT: Final = 10.0
# The fields of a response that are stored for the caller.
_KEPT_FIELDS: Final = frozenset((b"content-type", b"location", b"etag", b"last-modified"))
_BUSY_STATUSES: Final = frozenset((429, 503))
_GONE: Final = frozenset((404, 410))
_CONFLICT: Final = 409
# These come from an intermediary (RFC 9110, RFC 6585).
_INTERMEDIARY_STATUSES: Final = frozenset((407, 511))
# The `retry_after` of these is meant for callers: the platform has not asked for a delay.
_CONNECT_FAILURE_REASONS: Final = frozenset((errors.UPSTREAM_UNREACHABLE, errors.UPSTREAM_BUSY))
# Failures of one credential: requests with another one may succeed.
_OF_CREDENTIAL: Final = frozenset((errors.TOKEN_REFUSED, errors.TOKEN_REJECTED))
_OUTAGE_REASONS: Final = frozenset(
    (
        errors.UPSTREAM_UNREACHABLE,
        errors.UPSTREAM_TLS,
        errors.UPSTREAM_TIMEOUT,
        errors.CIRCUIT_OPEN,
    )
)
# Causes of responses that hold no FHIR.
_NOT_FHIR_CAUSES: Final = (errors.UPSTREAM_REDIRECT.code, errors.UPSTREAM_NON_FHIR.code)


class EntrySender:
    """Sends requests to the platform with the credential's token, by one version of the settings.

    `tokens` has those of all credentials, by name. `statement` has what the platform
    declares. `check_response` prevents a page of an intermediary from being taken for a response of
    the platform. `record` is called with what each attempt shows of the platform, and with its
    credential. Nothing is raised except on cancellation.
    """

    def __init__(
        self,
        *,
        tokens: Mapping[str, Tokens],
        client: PlatformClient,
        statement: CapabilityCache,
        condition_guard: ConditionGuard | None,
        record: Callable[[str | None, int | None, str], None],
        fhir: FhirSettings,
        serial_executor: SerialExecutor,
        wall_clock: Callable[[], float],
    ) -> None:
        self._tokens = tokens
        self._client = client
        self._statement = statement
        self._condition_guard = condition_guard
        self._record = record
        self._fhir = fhir
        self._serial_executor = serial_executor
        self._wall_clock = wall_clock

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        """Make one attempt. A 429 or 503 is returned as a failure without effect."""
        try:
            return await self._send(request)
        except GatewayError as error:
            self._record(
                signal_of_reason(error.reason.code, error.upstream_status),
                error.upstream_status,
                request.credential,
            )
            return _failure_of(error)
        except Exception as error:
            # The exception's text could quote the request.
            _log.error(
                "a queued write could not be sent: %s",
                type(error).__name__,
                **_facts(entry, request),
            )
            return AttemptResult(
                cause=errors.INTERNAL.code, may_have_effect=True, affects_all_entries=False
            )

    async def verify(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        """Return whether the platform has what an earlier attempt may have written."""
        try:
            return await self._verify_write(request)
        except GatewayError as error:
            return _failure_of(error)
        except TimeoutError:
            # The thread for large bodies was busy with those of other requests.
            return AttemptResult(cause=errors.OVERLOADED.code, affects_all_entries=False)
        except Exception as error:
            _log.error(
                "the platform could not be asked: %s",
                type(error).__name__,
                **_facts(entry, request),
            )
            return AttemptResult(cause=errors.INTERNAL.code, affects_all_entries=False)

    async def _send(self, request: QueuedRequest) -> AttemptResult:
        objection = await self._condition_objection(request)
        if objection is not None:
            if objection.reason is errors.CONDITION_UNKNOWN:
                # During an outage of the line this entry waits for its end like all others.
                is_outage = self._statement.unavailable_reason in _OUTAGE_REASONS
                return AttemptResult(cause=objection.reason.code, affects_all_entries=is_outage)
            return AttemptResult(StoredResponse(objection.status, reason=objection.reason.code))
        field_lines = [b"%s: %s\r\n" % field for field in request.fields]
        field_lines.append(b"Accept-Encoding: identity\r\n")
        # An empty body without a type is none.
        has_body = request.method not in BODILESS_METHODS and (
            request.body or first_field_value(request.fields, b"content-type") is not None
        )
        if not has_body:
            field_lines = remove_content_fields(field_lines)
        match = await self._current_version(request)
        if match is not None:
            field_lines.append(b"If-Match: %s\r\n" % match)
        outgoing = UpstreamRequest(
            method=request.method,
            target=(self._client.platform_path + request.target_suffix).encode("latin-1"),
            field_lines=field_lines,
            request_id=request.request_id,
            body=BufferedBody(request.body) if has_body else None,
            is_retryable=False,
        )
        sent = self._client.send(outgoing, self._tokens_of(request), DELIVERIES)
        with contextlib.closing(await sent) as response:
            result = await self._result(response, request, adds_version=match is not None)
        judge = signal_of_non_fhir if result.cause in _NOT_FHIR_CAUSES else signal_of_status
        self._record(judge(response.status), response.status, request.credential)
        found = result.response
        # That of an intermediary shows nothing.
        is_conflict = found is not None and found.status == _CONFLICT and not found.reason
        return replace(result, is_collision=is_conflict and not await names_version(request))

    async def _condition_objection(self, request: QueuedRequest) -> GatewayError | None:
        if self._condition_guard is None or request.resource_id is not None:
            return None
        return await self._condition_guard.check_queued(
            request.interaction,
            request.resource,
            request.target_suffix,
            request.fields,
            request.body,
        )

    async def _current_version(self, request: QueuedRequest) -> bytes | None:
        """Return the ETag for the If-Match of an update, where the settings require one."""
        if not self._fhir.auto_if_match or request.method != "PUT" or request.resource_id is None:
            return None
        if any(name.lower() in (b"if-match", b"if-none-match") for name, _ in request.fields):
            return None
        path = request.target_suffix.partition("?")[0]
        return await fetch_etag(self._client, path, self._tokens_of(request), request.request_id)

    def _tokens_of(self, request: QueuedRequest) -> Tokens:
        tokens = self._tokens.get(request.credential)
        if tokens is None:
            raise GatewayError(errors.TOKEN_REFUSED, "the settings have that credential no more")
        return tokens

    async def _verify_write(self, request: QueuedRequest) -> AttemptResult:
        if request.method == "PUT" and request.resource_id is not None:
            path = request.target_suffix.partition("?")[0]
            return await self._ask(
                request, path, "read", lambda found: compare_read(found, request)
            )
        # The parsed tree is not retained while this waits for the platform.
        queries = await self._serial_executor.run(
            len(request.body), "", lambda: verification_queries(request)
        )
        if queries is None:
            return AttemptResult(finding=VerificationStatus.INCONCLUSIVE)
        findings = []
        for query in queries:
            declared = await self._statement.declared_capability(
                query.resource_type, _STATEMENT_WAIT
            )
            # Read before the search: another write may have the statement fetched meanwhile.
            missing = self._statement.unavailable_reason
            if query.is_conditional and "create" in declared.conditional:
                findings.append(AttemptResult(finding=VerificationStatus.SAFE_TO_RESEND))
                continue
            support = SearchSupport(
                declared.parameters, self._fhir.unfiltered.get(query.resource_type, ())
            )
            finding = await self._search(request, query, support)
            if finding.finding is None:
                return finding
            if missing is not None and finding.finding is VerificationStatus.INCONCLUSIVE:
                # The statement may still be fetched, and may make the search conclusive; an
                # operator is needed only where nothing else helps.
                return AttemptResult(cause=missing.code, affects_all_entries=False)
            findings.append(finding)
        return combine_results(findings, request)

    async def _search(
        self, request: QueuedRequest, wanted: VerificationQuery, support: SearchSupport
    ) -> AttemptResult:
        # A match by the resource's own identifier always proves something, one by other parameters
        # only if all of them are declared.
        if wanted.identifier is None and not wanted.has_only_declared_parameters(support):
            return AttemptResult(finding=VerificationStatus.INCONCLUSIVE)
        suffix = f"/{wanted.resource_type}?{wanted.query}&_count={_MAX_MATCHES}"
        return await self._ask(
            request,
            suffix,
            "search-type",
            lambda found: compare_search(found, request, wanted, support),
        )

    async def _ask(
        self,
        request: QueuedRequest,
        suffix: str,
        interaction_code: str,
        compare: Callable[[StoredResponse], AttemptResult],
    ) -> AttemptResult:
        """Send a GET and return what `compare` finds in its response, or why there is none."""
        tokens = self._tokens_of(request)
        with contextlib.closing(
            await self._client.get(suffix, tokens, request.request_id)
        ) as response:
            if interaction_code == "read" and response.status in _GONE:
                return AttemptResult(finding=VerificationStatus.ABSENT)
            result = await self._result(response, request, interaction_code=interaction_code)
        found = result.response
        if found is None or has_failed(found.status):
            return result
        size = len(request.body) + len(found.body)
        return await self._serial_executor.run(size, "", lambda: compare(found))

    async def _result(
        self,
        response: UpstreamResponse,
        request: QueuedRequest,
        *,
        adds_version: bool = False,
        interaction_code: str = "",
    ) -> AttemptResult:
        """Return what a response means for its write. Raises `GatewayError`.

        `interaction_code` is that of a verification; "" for the write itself.
        """
        status = response.status
        if status in _BUSY_STATUSES:
            return AttemptResult(
                cause=errors.UPSTREAM_BUSY.code,
                retry_after=parse_retry_after(response.field(b"retry-after"), self._wall_clock()),
                affects_all_entries=status != 429,
            )
        if status == 412 and adds_version:
            # Another client changed the resource after its version was read: the next attempt reads
            # it again.
            return AttemptResult(cause=errors.UPSTREAM_BUSY.code, affects_all_entries=False)
        if status in _INTERMEDIARY_STATUSES:
            return AttemptResult(cause=errors.UPSTREAM_UNREACHABLE.code)
        accept = first_field_value(request.fields, b"accept")
        query = request.target_suffix.partition("?")[2]
        try:
            # Only the part of a long body that has arrived is checked here: the body is read
            # afterwards.
            if status >= 400:
                await buffer_error(response)
            interaction = Interaction(interaction_code or request.interaction, request.resource)
            check_response(response, interaction, accept, query, wall_clock=self._wall_clock)
        except GatewayError as error:
            return _intermediary_failure(error, status)
        return AttemptResult(await _stored_response(response))


def _facts(entry: OutboxEntry, request: QueuedRequest) -> dict[str, str]:
    return {
        "reason": errors.INTERNAL.code,
        "request_id": request.request_id,
        "entry": entry.id,
        "caller": entry.caller,
        "credential": request.credential,
    }


def _intermediary_failure(error: GatewayError, status: int) -> AttemptResult:
    """Return the result for an intermediary's response, or one of the platform without FHIR."""
    if error.reason is errors.UPSTREAM_REDIRECT:
        # A redirect requires another request; only a 303 may follow after the write took effect.
        return AttemptResult(cause=error.reason.code, may_have_effect=status == 303)
    if 200 <= status < 300:
        # Usually this is a sign-in page of the network.
        return AttemptResult(cause=error.reason.code, may_have_effect=True)
    return AttemptResult(
        StoredResponse(status, reason=error.reason.code, note=platform_status_note(status))
    )


async def _stored_response(response: UpstreamResponse) -> StoredResponse:
    fields: FieldLines = response.fields.forwarded_lines(_KEPT_FIELDS)
    try:
        body = await _body(response)
    except UpstreamConnectionError:
        if not 200 <= response.status < 300:
            raise GatewayError(errors.UPSTREAM_FAILED, "the response was cut off") from None
        body = None
    return StoredResponse(response.status, fields, body or b"")


async def _body(response: UpstreamResponse) -> bytes | None:
    """Return the decoded body; None where it is too long or cannot be decoded.

    Raises `UpstreamConnectionError`.
    """
    await response.prefetch(_MAX_RESPONSE_BYTES + 1)
    body, coding = response.buffered_body, response.content_coding
    if len(body) > _MAX_RESPONSE_BYTES:
        return None
    if coding is None:
        return body
    if coding not in DECODABLE:
        return None
    return await asyncio.to_thread(decode_body, body, coding, _MAX_RESPONSE_BYTES) or None


def _failure_of(error: GatewayError) -> AttemptResult:
    return AttemptResult(
        cause=error.reason.code,
        may_have_effect=error.reason in UNKNOWN_EFFECT_REASONS,
        retry_after=None if error.reason in _CONNECT_FAILURE_REASONS else error.retry_after,
        affects_all_entries=error.reason not in _OF_CREDENTIAL,
    )


class LatestEntrySender:
    """A sender that delegates to the one that is the newest when an attempt begins.

    `acquire_sender` returns that sender and a function that releases it; until then its connections
    stay open. `can_record` returns whether steps can be recorded: otherwise nothing is sent.
    `probe` sends the platform an inexpensive request; its response is reported like any other.
    """

    def __init__(
        self,
        *,
        acquire_sender: Callable[[], tuple[EntrySender, Callable[[], None]]],
        can_record: Callable[[], bool],
        probe: Callable[[], Awaitable[object]],
    ) -> None:
        self._acquire_sender = acquire_sender
        self._can_record = can_record
        self.probe = probe

    async def send(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        """As `EntrySender.send`."""
        if not self._can_record():
            return AttemptResult(cause=errors.AUDIT_UNAVAILABLE.code)
        sender, release = self._acquire_sender()
        try:
            return await sender.send(entry, request)
        finally:
            release()

    async def verify(self, entry: OutboxEntry, request: QueuedRequest) -> AttemptResult:
        """As `EntrySender.verify`."""
        sender, release = self._acquire_sender()
        try:
            return await sender.verify(entry, request)
        finally:
            release()
