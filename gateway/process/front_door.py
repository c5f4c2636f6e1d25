"""Leads every request to the newest version of the settings."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

from gateway.errors import GatewayError
from gateway.http.server.absolute_form import to_origin_form
from gateway.http.server.connection import IncomingRequest, RequestHandler
from gateway.http.server.messages import ConnectionDisposition


class ActiveUses:
    """What uses one version of the settings: exchanges, deliveries and the gateway's questions."""

    def __init__(self) -> None:
        self._count = 0
        self._empty: asyncio.Event | None = None

    def enter(self) -> None:
        """One begins."""
        self._count += 1

    def leave(self) -> None:
        """One is over."""
        self._count -= 1
        if not self._count and self._empty is not None:
            self._empty.set()

    async def wait_idle(self) -> None:
        """Wait for the end of the last one; called when no new ones begin."""
        if self._count:
            self._empty = asyncio.Event()
            await self._empty.wait()


class ServingCore(Protocol):
    """What is needed of `gateway.process.core.Core`."""

    @property
    def handler(self) -> RequestHandler:
        """What answers its requests."""
        ...

    @property
    def public_url(self) -> str | None:
        """The gateway's base URL as callers know it, where the settings name it."""
        ...

    @property
    def active_uses(self) -> ActiveUses:
        """What uses it."""
        ...


AnyCore = TypeVar("AnyCore", bound=ServingCore)


class CoreDispatcher(Generic[AnyCore]):
    """`core` may be replaced at any time; an exchange stays with the one it began in."""

    def __init__(self, core: AnyCore) -> None:
        self.core = core

    async def handle(self, request: IncomingRequest) -> ConnectionDisposition:
        """Answer one request."""
        core = self.core
        if not request.message.path.startswith("/"):
            request = to_origin_form(request, core.public_url)
        under_way = core.active_uses
        under_way.enter()
        try:
            return await core.handler.handle(request)
        finally:
            under_way.leave()

    async def reject_malformed(
        self, request: IncomingRequest, error: GatewayError
    ) -> ConnectionDisposition:
        """Answer what could not be parsed."""
        return await self.core.handler.reject_malformed(request, error)
