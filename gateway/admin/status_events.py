"""`/status/events`: newer content of the status page as server-sent events for open pages.

One direction is enough, and browsers reconnect by themselves. Without a stream the page requests
the whole page, as some proxies delay events.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs
from aiohttp.web_exceptions import HTTPServiceUnavailable
from aiohttp.web_request import Request
from aiohttp.web_response import StreamResponse

from gateway.admin.status_facts import StatusReporter

# Seconds between two collections of the facts. Unchanged facts are sent every `_EVERY` times only.
_INTERVAL: Final = 1.0
_EVERY: Final = 5
# Each open page occupies one of the 64 connections of the operators' listener.
_MAX_STREAMS: Final = 16
# Seconds for which a browser may read nothing: a sleeping computer must not occupy a stream.
_SEND_TIMEOUT: Final = 10.0

# Facts that change with time alone.
_TIME_DEPENDENT_FIELDS: Final = frozenset(
    {"at", "uptime_seconds", "expires_in", "next_attempt_in", "from", "oldest_seconds"}
)

HEADERS: Final = {
    hdrs.CONTENT_TYPE: "text/event-stream; charset=utf-8",
    # Makes proxies forward each event at once.
    "X-Accel-Buffering": "no",
}

Facts = Mapping[str, Any]


class StatusEvents:
    """Sends changed facts to every open page at once, and unchanged ones from time to time.

    `interval` and `send_timeout` (for one event) are in seconds; `max_streams` is the maximum
    number of open pages.
    """

    def __init__(
        self,
        status: StatusReporter,
        render: Callable[[Facts], Mapping[str, str]],
        *,
        interval: float = _INTERVAL,
        max_streams: int = _MAX_STREAMS,
        send_timeout: float = _SEND_TIMEOUT,
    ) -> None:
        self._status = status
        self._render = render
        self._interval = interval
        self._max_streams = max_streams
        self._send_timeout = send_timeout
        self._open = 0
        self._closed = asyncio.Event()

    async def serve(
        self, request: Request, language: str, shown: Callable[[Facts], Facts] = lambda facts: facts
    ) -> StreamResponse:
        """Send events until the browser disconnects or the gateway stops.

        `shown` returns those of the facts that the page shows: what it does not is not compared.
        Raises `HTTPServiceUnavailable` if too many pages are open.
        """
        if self._open >= self._max_streams:
            raise HTTPServiceUnavailable
        self._open += 1
        try:
            return await self._stream(request, language, shown)
        finally:
            self._open -= 1

    async def close(self, _application: object = None) -> None:
        """End all streams."""
        self._closed.set()

    async def _stream(
        self, request: Request, language: str, shown: Callable[[Facts], Facts]
    ) -> StreamResponse:
        response = StreamResponse(status=HTTPStatus.OK, headers=HEADERS)
        await response.prepare(request)
        last: object = None
        quiet = 0
        while not self._closed.is_set():
            facts = shown(self._status.facts(language))
            lasting = _without_time_fields(facts)
            quiet += 1
            if lasting != last or quiet >= _EVERY:
                last, quiet = lasting, 0
                if not await self._send(response, facts):
                    break
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), self._interval)
        return response

    async def _send(self, response: StreamResponse, facts: Facts) -> bool:
        """Send an event and return whether that succeeded; otherwise close the connection."""
        event = b"data: " + orjson.dumps(self._render(facts)) + b"\n\n"
        try:
            async with asyncio.timeout(self._send_timeout):
                await response.write(event)
        except (ConnectionError, TimeoutError):
            response.force_close()
            return False
        return True


def _without_time_fields(facts: Any) -> Any:
    """Return the facts without those that change with time alone."""
    if isinstance(facts, Mapping):
        return {
            key: _without_time_fields(value)
            for key, value in facts.items()
            if key not in _TIME_DEPENDENT_FIELDS
        }
    if isinstance(facts, list | tuple):
        return [_without_time_fields(value) for value in facts]
    return facts
