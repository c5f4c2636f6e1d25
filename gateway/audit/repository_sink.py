"""Delivery of AuditEvents to a FHIR repository: batches of updates with ids that the gateway chose.

An update as create (`PUT AuditEvent/{id}`) is idempotent: after a failure with unknown effect the
same entries are sent again and nothing is stored twice. An entry counts as stored by its own status
in the batch-response. A server may respond to `Prefer: return=minimal` without a body, as Medplum
did for batches of which it had stored nothing. Then one entry is read back, and later batches are
sent without the preference.

The writer thread waits for requests that run in the event loop, in its `ClientSession`.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

from gateway.audit.audit_writer import MAX_BYTES, RETRY_DELAY, OnFailure, SinkError, WriterThread
from gateway.clock import TimeSource, backoff
from gateway.field_values import parse_retry_after
from gateway.telemetry.logs import get_logger

MAX_ENTRIES: Final = 100
_MAX_BATCH_BYTES: Final = 1024 * 1024
# Seconds.
_FIRST_PAUSE: Final = 0.5
_MAX_PAUSE: Final = 15.0
# A media type, a resource type or a Bundle type, which an error may quote.
_SAFE_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9.+/-]{0,63}")
# Client errors that the repository's operator can resolve; the AuditEvents are kept until then.
_RETRYABLE_STATUSES: Final = frozenset(
    {401, 403, 404, 405, 407, 408, 409, 421, 423, 424, 425, 426, 429}
)

_log = get_logger("gateway.audit")


@dataclass(frozen=True, slots=True)
class RepositoryResponse:
    """The response of the repository: status, body, and the fields Retry-After and Content-Type."""

    status: int
    body: bytes
    retry_after: str | None = None
    content_type: str = ""


class RepositorySink:
    """Sends resources to a FHIR repository (`audit_writer.Sink`). A line is a resource.

    `client` sends to `base`, blocking; it raises `SinkError` if there is no response.
    `on_records` counts as for a `WriterThread`, which has to call `count_outcome` in its place:
    that counts resources that the repository rejected permanently as `dropped`.
    """

    def __init__(
        self,
        base: str,
        client: RepositoryClient,
        on_records: Callable[[str, int], None],
        *,
        times: TimeSource | None = None,
    ) -> None:
        self._base = base
        self._client = client
        self._on_records = on_records
        self._times = times or TimeSource()
        self._unsent: deque[bytes] = deque()
        self._max_entries = MAX_ENTRIES  # of the next batch
        self._failures = 0
        self._not_before = 0.0  # the monotonic time of the next attempt
        self._skips_pauses = False
        self._rejected = 0  # not yet counted as dropped
        self._is_rejection_logged = False
        self._prefers_minimal = True
        self._is_loss_logged = False

    def write(self, lines: Sequence[bytes]) -> None:
        if not self._unsent:
            self._unsent.extend(lines)
        if not self._skips_pauses and self._times.clock() < self._not_before:
            raise SinkError("paused after a failure")
        while self._unsent:
            try:
                failed = self._deliver()
            except Exception:
                self._postpone(None)
                raise
            if failed is not None:
                self._postpone(failed.retry_after)
                raise SinkError(f"HTTP {failed.status}")
            self._failures = 0

    def discard_failed(self) -> int:
        lost = len(self._unsent)
        self._unsent.clear()
        return lost

    def close(self) -> None:
        """Do nothing: the connections belong to the owner of the client's session."""

    def skip_pauses(self) -> None:
        """Make attempts without pauses, since the gateway is stopping.

        May be called in any thread.
        """
        self._skips_pauses = True

    def count_outcome(self, outcome: str, count: int) -> None:
        """Count the outcome of `count` lines. Of those written, rejected ones count as dropped."""
        if outcome == "written":
            rejected, self._rejected = self._rejected, 0
            if rejected:
                self._on_records("dropped", rejected)
            count -= rejected
        if count:
            self._on_records(outcome, count)

    def _deliver(self) -> RepositoryResponse | None:
        """Send the next batch. Return the failed response if entries remain to be sent later."""
        batch = self._next_batch()
        reply = self._client.post(self._bundle(batch), minimal=self._prefers_minimal)
        if reply.status in (400, 413, 422):
            if len(batch) > 1:
                # The batch is too large, or the server rejects it because of one resource, which
                # smaller batches isolate.
                self._max_entries = len(batch) // 2
            else:
                self._unsent.popleft()
                self._drop_rejected(reply.status)
            return None
        if not 200 <= reply.status < 300:
            return reply
        return self._apply_statuses(batch, self._entry_statuses(reply, batch))

    def _entry_statuses(self, reply: RepositoryResponse, batch: list[bytes]) -> list[int]:
        """Return the status of each entry. Raises `SinkError`.

        A response without a body has one status for all; the last entry must then be readable.
        """
        if reply.body.strip():
            return _parse_batch_response(reply, len(batch))
        self._prefers_minimal = False
        address = _address(batch[-1])
        found = self._client.read(address)
        if found.status == 200 and _is_audit_event(found.body, address):
            return [reply.status] * len(batch)
        if not self._is_loss_logged:
            self._is_loss_logged = True
            _log.warning(
                "audit.fhir_endpoint answers batches without a body, and an AuditEvent of one could"
                " not be read back: all are kept and sent again. Let the repository answer with a"
                " batch-response, or let audit.fhir_credential create AuditEvents with ids of its"
                " own (PUT) and read them; reported once",
                status=reply.status,
                read=found.status,
            )
        raise SinkError(f"HTTP {reply.status} without a body, and read back HTTP {found.status}")

    def _apply_statuses(self, batch: list[bytes], statuses: list[int]) -> RepositoryResponse | None:
        """Remove the entries that are stored or rejected. Return the response for the others."""
        kept: list[tuple[bytes, int]] = []
        for line, status in zip(batch, statuses, strict=True):
            self._unsent.popleft()
            if 400 <= status < 500 and status not in _RETRYABLE_STATUSES:
                self._drop_rejected(status)
            elif not 200 <= status < 300:
                kept.append((line, status))
        self._unsent.extendleft(line for line, _ in reversed(kept))
        self._max_entries = min(2 * self._max_entries, MAX_ENTRIES)
        return RepositoryResponse(kept[0][1], b"") if kept else None

    def _next_batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for line in self._unsent:
            size += len(line)
            if batch and (len(batch) >= self._max_entries or size > _MAX_BATCH_BYTES):
                break
            batch.append(line)
        return batch

    def _bundle(self, batch: list[bytes]) -> bytes:
        return orjson.dumps(
            {
                "resourceType": "Bundle",
                "type": "batch",
                "entry": [self._entry(line) for line in batch],
            }
        )

    def _entry(self, line: bytes) -> dict[str, Any]:
        address = _address(line)
        return {
            "fullUrl": f"{self._base}/{address}",
            "resource": orjson.Fragment(line.rstrip(b"\n")),
            "request": {"method": "PUT", "url": address},
        }

    def _drop_rejected(self, status: int) -> None:
        self._rejected += 1
        if not self._is_rejection_logged:
            self._is_rejection_logged = True
            _log.error("AuditEvents are refused for good and dropped; reported once", status=status)

    def _postpone(self, retry_after: str | None) -> None:
        """Delay the next attempt: backoff with jitter, or Retry-After if that is longer."""
        requested_delay = parse_retry_after(
            retry_after, self._times.wall_clock(), max_delay=_MAX_PAUSE
        )
        self._failures += 1
        delay = backoff(self._failures, _FIRST_PAUSE, _MAX_PAUSE, self._times.random)
        self._not_before = self._times.clock() + max(delay, requested_delay or 0.0)


class RepositoryWriter(WriterThread):
    """A writer that retries as long as its backlog is below its limit, also with `drop`.

    Meanwhile the audit records are in the sink of `audit.sink`. A restart of a repository takes
    longer than that of a pipe's reader.
    """

    log_name = "AuditEvents"
    retries_forever = True
    max_lines_per_write = MAX_ENTRIES

    def __init__(
        self,
        sink: RepositorySink,
        *,
        on_failure: OnFailure,
        max_bytes: int = MAX_BYTES,
        retry_delay: float = RETRY_DELAY,
    ) -> None:
        super().__init__(
            sink,
            on_failure=on_failure,
            on_records=sink.count_outcome,
            max_bytes=max_bytes,
            stalled_bytes=max_bytes,
            retry_delay=retry_delay,
        )
        self._skip_pauses = sink.skip_pauses

    async def close(self, timeout: float) -> int:
        """Send accepted lines for at most `timeout` seconds. Return the number of lost ones."""
        self._skip_pauses()
        return await super().close(timeout)


def _address(line: bytes) -> str:
    return f"AuditEvent/{orjson.loads(line)['id']}"


def _is_audit_event(body: bytes, address: str) -> bool:
    """Return whether a body is the resource at `address`: a proxy may send 200 with a page."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        resource = orjson.loads(body)
        return f"{resource['resourceType']}/{resource['id']}" == address
    return False


def _parse_batch_response(reply: RepositoryResponse, count: int) -> list[int]:
    """Return the status of each entry of a batch-response. Raises `SinkError` if it is invalid."""
    bundle: Any = None
    with contextlib.suppress(ValueError):
        bundle = orjson.loads(reply.body)
    try:
        if bundle["type"] != "batch-response":
            raise _unexpected(reply, bundle)
        statuses = [int(entry["response"]["status"][:3]) for entry in bundle["entry"]]
    except (ValueError, TypeError, KeyError):
        raise _unexpected(reply, bundle) from None
    if len(statuses) != count:
        raise SinkError(f"a batch-response with {len(statuses)} entries to {count}")
    return statuses


def _unexpected(reply: RepositoryResponse, body: object) -> SinkError:
    """Return an error that describes the response. It quotes only names, never content."""
    facts = [f"HTTP {reply.status}", f"{len(reply.body)} bytes"]
    members = body if isinstance(body, dict) else {}
    for name in (reply.content_type, members.get("resourceType"), members.get("type")):
        if isinstance(name, str) and _SAFE_NAME.fullmatch(name):
            facts.append(name)
    return SinkError(f"no batch-response came, but {', '.join(facts)}")


# Seconds. The thread waits a little longer, so that the exchange itself reports its timeout.
_EXCHANGE_TIMEOUT: Final = 10.0
_TIMEOUT_GRACE: Final = 1.0
_MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)
_REQUEST_FIELDS: Final = {
    "Accept": "application/fhir+json",
    "Accept-Encoding": "identity",
    "User-Agent": "dhp-gateway",
}


class RepositoryClient:
    """Sends to the base URL of a repository, one request at a time. Create it in the loop's thread.

    Its methods block, and must not run in that thread; they raise `SinkError`. The session is not
    closed. If `tls` is None, the system's root certificates are used. `authorization` returns the
    value of the Authorization field and raises where there is no token. `on_unauthorized` is called
    with a value that got a 401. Both run in the loop's thread. `timeout` is in seconds and covers
    the whole exchange.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        base: str,
        *,
        tls: ssl.SSLContext | None = None,
        authorization: Callable[[], Awaitable[bytes]] | None = None,
        on_unauthorized: Callable[[bytes], None] | None = None,
        timeout: float = _EXCHANGE_TIMEOUT,
    ) -> None:
        self._session = session
        self._base = base
        self._tls = tls
        self._authorization = authorization
        self._on_unauthorized = on_unauthorized
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()

    def post(self, bundle: bytes, *, minimal: bool) -> RepositoryResponse:
        """Return the response to a Bundle; with `minimal` resources are not needed in it."""
        headers = {"Content-Type": "application/fhir+json"}
        if minimal:
            headers["Prefer"] = "return=minimal"
        return self._run_in_loop("POST", self._base, bundle, headers)

    def read(self, address: str) -> RepositoryResponse:
        """Return the response to a read of a resource, by its URL relative to the base."""
        return self._run_in_loop("GET", f"{self._base.rstrip('/')}/{address}", b"", {})

    def _run_in_loop(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> RepositoryResponse:
        exchange = self._exchange(method, url, body, _REQUEST_FIELDS | headers)
        try:
            future = asyncio.run_coroutine_threadsafe(exchange, self._loop)
        except RuntimeError:
            exchange.close()
            raise SinkError("the gateway has ended") from None
        try:
            return future.result(self._timeout + _TIMEOUT_GRACE)
        except SinkError:
            raise
        except BaseException as error:
            future.cancel()
            # The text of the exception could show the URL or the token.
            raise SinkError(type(error).__name__) from None

    async def _exchange(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> RepositoryResponse:
        async with asyncio.timeout(self._timeout):
            if self._authorization is None:
                return await self._send_with_reconnect(method, url, body, headers)
            try:
                authorization = await self._authorization()
            except Exception:
                raise SinkError("no token for the repository") from None
            headers["Authorization"] = authorization.decode("ascii")
            reply = await self._send_with_reconnect(method, url, body, headers)
            if reply.status == 401 and self._on_unauthorized is not None:
                self._on_unauthorized(authorization)
            return reply

    async def _send_with_reconnect(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> RepositoryResponse:
        """Send, and retry once if the connection was lost: an idle connection can die unnoticed."""
        try:
            return await self._send(method, url, body, headers)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
            return await self._send(method, url, body, headers)

    async def _send(
        self, method: str, url: str, body: bytes, headers: dict[str, str]
    ) -> RepositoryResponse:
        async with self._session.request(
            method,
            url,
            data=body or None,
            headers=headers,
            allow_redirects=False,
            ssl=self._tls or True,
            timeout=_NO_TIMEOUT,
        ) as response:
            received = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                received += chunk
                if len(received) > _MAX_RESPONSE_BYTES:
                    raise SinkError("the response is too long")
            return RepositoryResponse(
                response.status,
                bytes(received),
                response.headers.get("Retry-After"),
                response.content_type,
            )
