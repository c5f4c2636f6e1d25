"""Dispatches every request to the core of the newest settings.

The module is compiled; `revision`, the rest of the subject, is not on the path of requests.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.errors import GatewayError
from gateway.http.server.absolute_form import to_origin_form
from gateway.http.server.caller_connection import IncomingRequest
from gateway.http.server.request_parser import ConnectionDisposition
from gateway.pipeline.handler import Handler

if TYPE_CHECKING:
    from gateway.login.auth_routes import AuthRoutes


class ActiveUses:
    """Counts the users of one core: exchanges, deliveries and probes."""

    def __init__(self) -> None:
        self._count = 0
        self._empty: asyncio.Event | None = None

    def enter(self) -> None:
        """Count the begin of a use."""
        self._count += 1

    def leave(self) -> None:
        """Count the end of a use."""
        self._count -= 1
        if not self._count and self._empty is not None:
            self._empty.set()

    async def wait_idle(self) -> None:
        """Wait for the end of the last use. Called when no new use can begin."""
        if self._count:
            self._empty = asyncio.Event()
            await self._empty.wait()


@dataclass(slots=True)
class RequestRoute:
    """What handles the requests of one core; they count as its uses."""

    handler: Handler | AuthRoutes
    active_uses: ActiveUses
    public_url: str | None


class CoreDispatcher:
    """Dispatches to the core of `route`, which may be replaced; an exchange keeps its core."""

    def __init__(self, route: RequestRoute) -> None:
        self.route = route

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Handle one request. Convert an absolute-form target first (RFC 9112 section 3.2.2)."""
        route = self.route
        if not request.message.path.startswith("/"):
            request = to_origin_form(request, route.public_url)
        under_way = route.active_uses
        under_way.enter()
        try:
            return await route.handler.handle(request)
        finally:
            under_way.leave()

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Respond to a request that could not be parsed."""
        return await self.route.handler.reject_malformed(request, error)
