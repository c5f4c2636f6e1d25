"""Leads every request to the newest version of the settings."""

from __future__ import annotations

from typing import Generic, Protocol, TypeVar

from gateway.errors import GatewayError
from gateway.http.server.absolute_form import addressed
from gateway.http.server.connection import IncomingRequest, RequestSink
from gateway.http.server.messages import Answered


class Current(Protocol):
    """What is needed of `gateway.process.core.Core`."""

    @property
    def handler(self) -> RequestSink:
        """What answers its requests."""
        ...

    @property
    def public_url(self) -> str | None:
        """The gateway's base URL as callers know it, where the settings name it."""
        ...

    def entered(self) -> None:
        """An exchange begins."""
        ...

    def left(self) -> None:
        """An exchange is over."""
        ...


AnyCore = TypeVar("AnyCore", bound=Current)


class FrontDoor(Generic[AnyCore]):
    """`core` may be replaced at any time; an exchange stays with the one it began in."""

    def __init__(self, core: AnyCore) -> None:
        self.core = core

    async def handle(self, request: IncomingRequest) -> Answered:
        """Answer one request."""
        core = self.core
        if not request.message.path.startswith("/"):
            request = addressed(request, core.public_url)
        core.entered()
        try:
            return await core.handler.handle(request)
        finally:
            core.left()

    async def refuse(self, request: IncomingRequest, error: GatewayError) -> Answered:
        """Answer what could not be parsed."""
        return await self.core.handler.refuse(request, error)
