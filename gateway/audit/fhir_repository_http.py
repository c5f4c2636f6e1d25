"""HTTP client of the FHIR repository for the writer thread, on the event loop's session."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final, Protocol

import aiohttp

from gateway.audit.fhir_repository import RepositoryResponse
from gateway.audit.sink import SinkError

_TIMEOUT: Final = 10.0
_GRACE: Final = 1.0
_MAX_REPLY: Final = 8 * 1024 * 1024
_NO_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=None, sock_connect=None)
_HEADERS: Final = {
    "Accept": "application/fhir+json",
    "Accept-Encoding": "identity",
    "Content-Type": "application/fhir+json",
    "Prefer": "return=minimal",
    "User-Agent": "dhp-gateway",
}


class BearerSource(Protocol):
    """The source of the repository's token. Its methods are called in the event loop's thread."""

    async def authorization(self) -> bytes:
        """Return the value of the field `Authorization`. Raises if there is no token."""
        ...

    def on_unauthorized(self, authorization: bytes) -> None:
        """Called when the repository responded 401 to a request with this value."""
        ...


class RepositoryClient:
    """Sends Bundles to the base URL of a repository, one at a time. Create it in the loop's thread.

    The session is not closed. If `tls` is None, the system's root certificates are used. `timeout`
    is in seconds and covers the whole exchange.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,  # noqa: TID251 - received, not made
        base: str,
        *,
        tls: ssl.SSLContext | None = None,
        bearer: BearerSource | None = None,
        timeout: float = _TIMEOUT,
    ) -> None:
        self._session = session
        self._base = base
        self._tls = tls
        self._bearer = bearer
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()

    def __call__(self, body: bytes) -> RepositoryResponse:
        """Send a Bundle and return the response. Blocks, and must not run in the loop's thread.

        Raises `SinkError`.
        """
        try:
            sending = asyncio.run_coroutine_threadsafe(self._exchange(body), self._loop)
        except RuntimeError:
            raise SinkError("the gateway has ended") from None
        try:
            return sending.result(self._timeout + _GRACE)
        except SinkError:
            raise
        except BaseException as error:
            sending.cancel()
            # The text of the exception could show the URL or the token.
            raise SinkError(type(error).__name__) from None

    async def _exchange(self, body: bytes) -> RepositoryResponse:
        async with asyncio.timeout(self._timeout):
            headers = dict(_HEADERS)
            if self._bearer is None:
                return await self._send_with_reconnect(body, headers)
            try:
                authorization = await self._bearer.authorization()
            except Exception:
                raise SinkError("no token for the repository") from None
            headers["Authorization"] = authorization.decode("ascii")
            reply = await self._send_with_reconnect(body, headers)
            if reply.status == 401:
                self._bearer.on_unauthorized(authorization)
            return reply

    async def _send_with_reconnect(
        self, body: bytes, headers: dict[str, str]
    ) -> RepositoryResponse:
        """Send, and retry once if the connection was lost: an idle connection can die unnoticed."""
        try:
            return await self._send(body, headers)
        except (aiohttp.ServerDisconnectedError, ConnectionResetError, BrokenPipeError):
            return await self._send(body, headers)

    async def _send(self, body: bytes, headers: dict[str, str]) -> RepositoryResponse:
        async with self._session.post(
            self._base,
            data=body,
            headers=headers,
            allow_redirects=False,
            ssl=self._tls or True,
            timeout=_NO_TIMEOUT,
        ) as response:
            answer = bytearray()
            async for chunk in response.content.iter_chunked(65536):
                answer += chunk
                if len(answer) > _MAX_REPLY:
                    raise SinkError("an answer without an end")
            return RepositoryResponse(
                response.status,
                bytes(answer),
                response.headers.get("Retry-After"),
                response.content_type,
            )
