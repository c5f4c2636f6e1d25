"""The operators' listener: aiohttp with short timeouts, a connection limit and terse errors.

By default, aiohttp would keep an idle connection open for an hour, send its version, and quote
input that it could not parse.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import hdrs
from aiohttp.web_app import Application
from aiohttp.web_exceptions import HTTPException
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_request import BaseRequest
from aiohttp.web_response import Response, StreamResponse
from aiohttp.web_runner import AppRunner
from aiohttp.web_server import Server

from gateway.config.value_types import ListenAddress
from gateway.field_values import host_name
from gateway.http.request_target import ABSOLUTE
from gateway.telemetry.logs import get_logger

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]

_log = get_logger(__name__)

# Seconds after which a connection without a next request is closed, even if a part of the request
# has arrived. A scraper with an interval of 15 s therefore opens a new connection each time.
_REQUEST_TIMEOUT: Final = 10.0
_LINGER: Final = 1.0
_SHUTDOWN: Final = 1.0
_MAX_CONNECTIONS: Final = 64
_MAX_LINE: Final = 4096
_MAX_FIELD: Final = 4096
_MAX_FIELDS: Final = 64
SAFE_HEADERS: Final[Mapping[str, str]] = {
    hdrs.CACHE_CONTROL: "no-store",
    "X-Content-Type-Options": "nosniff",
    # Otherwise aiohttp sends its own version and Python's.
    hdrs.SERVER: "dhp-gateway",
}


class OperatorRunner(AppRunner):
    """Serves the operators' application on the listener of `address`.

    On a loopback address a request must name the listener by an IP address, as `localhost` or as
    the settings do: a web site can let its own name resolve to 127.0.0.1 (DNS rebinding) and make a
    browser on this machine read the responses. `request_timeout` is the timeout of a
    connection's next request in seconds.
    """

    def __init__(
        self,
        application: Application,
        address: ListenAddress,
        *,
        request_timeout: float = _REQUEST_TIMEOUT,
        max_connections: int = _MAX_CONNECTIONS,
    ) -> None:
        super().__init__(application, handle_signals=False, shutdown_timeout=_SHUTDOWN)
        self._names = _allowed_hosts(address)
        self._request_timeout = request_timeout
        self._max_connections = max_connections

    async def _make_server(self) -> Server:
        server = await super()._make_server()
        return _OperatorServer(
            server,
            _with_host_check(server.request_handler, self._names),
            max_connections=self._max_connections,
            # Runs from the connection's start, too, and parts of a header do not restart it.
            keepalive_timeout=self._request_timeout,
            access_log=None,
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
            lingering_time=_LINGER,
        )


class _OperatorServer(Server):
    def __init__(
        self, server: Server, handler: Handler, *, max_connections: int, **options: Any
    ) -> None:
        super().__init__(handler, request_factory=server.request_factory, **options)
        self._max_connections = max_connections
        self._options = options

    def __call__(self) -> RequestHandler:
        return _OperatorConnection(self, loop=asyncio.get_running_loop(), **self._options)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Abort the oldest connection at the limit, so that idle ones do not lock operators out."""
        transports = [connection.transport for connection in self.connections]
        living = [one for one in transports if one is not None and not one.is_closing()]
        if len(living) >= self._max_connections:
            living[0].abort()
        super().connection_made(handler, transport)


class _OperatorConnection(RequestHandler):
    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> StreamResponse:
        """Return an error response that quotes neither the request nor the exception.

        Raises `ConnectionError` if a response has begun.
        """
        if status >= 500:
            _log.error("the operators' listener failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        answer = _error_response(status)
        answer.force_close()
        return answer


def _with_host_check(handler: Handler, names: frozenset[str] | None) -> Handler:
    async def answer(request: BaseRequest) -> StreamResponse:
        # Handlers do not suspend: many requests that arrive at once would block the loop.
        await asyncio.sleep(0)
        if names is not None and not _is_allowed_host(request, names):
            return _error_response(HTTPStatus.MISDIRECTED_REQUEST, "use an IP address or localhost")
        try:
            return await handler(request)
        except HTTPException as error:
            # aiohttp raises it for an unknown `Expect` before it calls any middleware.
            return _error_response(error.status)

    return answer


def _allowed_hosts(address: ListenAddress) -> frozenset[str] | None:
    """Return the host names that a request may use besides IP addresses; None allows any."""
    if address.path is not None or not address.is_loopback:
        return None
    return frozenset({"localhost", address.host.lower()})


def authority_of(request: BaseRequest) -> str | None:
    """Return the authority of a request, None if it has none.

    It is that of a target in absolute form, and then the Host field is ignored (RFC 9112 section
    3.2.2), else that of the Host field. It is empty for any other form of the target.
    """
    target = request.raw_path
    if target.startswith("/") or target == "*":
        return request.headers.get(hdrs.HOST)
    found = ABSOLUTE.match(target)
    return "" if found is None else found[2]


def _is_allowed_host(request: BaseRequest, names: frozenset[str]) -> bool:
    authority = authority_of(request)
    if authority is None:
        # Browsers always send the Host field, so that this is no DNS rebinding.
        return True
    name = host_name(authority)
    if name is None:
        return False
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return name.removesuffix(".") in names
    return True


def _error_response(status: int, hint: str | None = None) -> Response:
    body = {"error": HTTPStatus(status).phrase} | ({"hint": hint} if hint else {})
    return json_response(status, body, SAFE_HEADERS)


def json_response(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response whose body is one line of JSON."""
    return Response(
        status=status,
        body=orjson.dumps(body) + b"\n",
        content_type="application/json",
        headers=headers,
    )
