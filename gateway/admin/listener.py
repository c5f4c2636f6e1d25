"""The operators' connections: aiohttp's, but short-lived, limited in number, and with few words.

aiohttp alone would keep a silent connection for an hour, show its version, and quote what it could
not parse.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
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

from gateway.config import ListenAddress
from gateway.http.server.validation import host_name
from gateway.http.target import ABSOLUTE
from gateway.telemetry.logs import get_logger

Handler = Callable[[BaseRequest], Awaitable[StreamResponse]]

_log = get_logger(__name__)

# How long a connection may take for its next request, whole or not, in seconds. A scraper that
# comes every 15 s opens a new one each time.
_REQUEST_TIMEOUT: Final = 10.0
_LINGER: Final = 1.0
_SHUTDOWN: Final = 1.0
MAX_CONNECTIONS: Final = 64
_MAX_LINE: Final = 4096
_MAX_FIELD: Final = 4096
_MAX_FIELDS: Final = 64


class OperatorRunner(AppRunner):
    """Serves the operators' pages on a listener of this address.

    On loopback only those are answered that name the listener by an IP address, as `localhost` or
    as the settings do: a web site can have its own name lead to 127.0.0.1 (DNS rebinding) and have
    a browser on this machine read the answers. `patience` is in seconds.
    """

    def __init__(
        self,
        application: Application,
        address: ListenAddress,
        *,
        patience: float = _REQUEST_TIMEOUT,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        super().__init__(application, handle_signals=False, shutdown_timeout=_SHUTDOWN)
        self._names = _allowed_hosts(address)
        self._request_timeout = patience
        self._max_connections = max_connections

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return _OperatorServer(
            _with_host_check(made.request_handler, self._names),
            request_factory=made.request_factory,
            patience=self._request_timeout,
            max_connections=self._max_connections,
        )


class _OperatorServer(Server):
    def __init__(
        self, handler: Handler, *, request_factory: Any, patience: float, max_connections: int
    ) -> None:
        super().__init__(handler, request_factory=request_factory)
        self._request_timeout = patience
        self._max_connections = max_connections

    def __call__(self) -> RequestHandler:
        return _OperatorConnection(
            self,
            loop=self._loop,
            # Also runs from the connection's start, and is not renewed by parts of a header.
            keepalive_timeout=self._request_timeout,
            access_log=None,  # type: ignore[arg-type]
            max_line_size=_MAX_LINE,
            max_field_size=_MAX_FIELD,
            max_headers=_MAX_FIELDS,
            lingering_time=_LINGER,
        )

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Where there are too many, the oldest gives way: no idler shuts the operators out."""
        living = [each for each in self._connections.values() if not each.is_closing()]
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
        """Answer what could not be parsed, or what broke, without a word of either."""
        if status >= 500:
            _log.error("the operators' listener failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun")
        answer = _error_response(status)
        answer.force_close()
        return answer


def _with_host_check(handler: Handler, names: frozenset[str] | None) -> Handler:
    async def answer(request: BaseRequest) -> StreamResponse:
        # No page waits for anything, and many may have been asked for at once.
        await asyncio.sleep(0)
        if names is not None and not _is_allowed_host(request, names):
            return _error_response(HTTPStatus.MISDIRECTED_REQUEST, "use an IP address or localhost")
        try:
            return await handler(request)
        except HTTPException as error:
            # An unknown `Expect`, which no middleware sees.
            return _error_response(error.status)

    return answer


def _allowed_hosts(address: ListenAddress) -> frozenset[str] | None:
    """The names by which a listener may be called; None for any."""
    if address.path is not None or not address.is_loopback:
        return None
    return frozenset({"localhost", address.host.lower()})


def authority_of(request: BaseRequest) -> str | None:
    """Return the authority that a request names, None if it names none.

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
        # No browser leaves it out.
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
    headers = {
        hdrs.CACHE_CONTROL: "no-store",
        "X-Content-Type-Options": "nosniff",
        hdrs.SERVER: "dhp-gateway",
    }
    return Response(
        status=status,
        body=orjson.dumps(body) + b"\n",
        content_type="application/json",
        headers=headers,
    )
