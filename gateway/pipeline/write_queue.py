"""What keeps writes that cannot be delivered now, as the request path sees it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

from gateway.fhir.interaction import Interaction
from gateway.http.client.response import UpstreamResponse
from gateway.http.headers import RequestHeader
from gateway.http.target import RequestTarget
from gateway.pipeline.caller_memo import CallerContext
from gateway.pipeline.callers import Caller
from gateway.pipeline.request_body import RequestBody
from gateway.pipeline.request_context import RequestContext

ForwardRequest = Callable[[RequestContext], Awaitable[UpstreamResponse]]


class WriteQueue(ABC):
    """The outbox, for whoever has one; a class of its own so that others need not load that."""

    @abstractmethod
    def allow_own_entries(self, caller: Caller, target: RequestTarget) -> Caller:
        """The caller, who may ask for its own entries whatever else it is allowed."""

    @abstractmethod
    def accepts_writes_of(self, caller: Caller, header: RequestHeader) -> bool:
        """Whether a write of this caller may be queued, when it comes with this header."""

    @abstractmethod
    def retain_body(
        self, caller_context: CallerContext, interaction: Interaction, body: RequestBody
    ) -> None:
        """See to it that the body of a write which may be queued can be read again."""

    @abstractmethod
    def forward_or_queue(
        self, send: ForwardRequest, context: RequestContext
    ) -> Awaitable[UpstreamResponse]:
        """The platform's answer as `send` brings it, or the queue's. Raises `GatewayError`."""
