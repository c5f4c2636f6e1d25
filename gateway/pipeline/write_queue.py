"""Interface of the outbox to the request path."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from gateway.http.client.upstream_response import UpstreamResponse
from gateway.pipeline.request import RequestContext

if TYPE_CHECKING:
    from gateway.fhir.interaction import Interaction
    from gateway.http.headers import RequestHeader
    from gateway.http.request_target import RequestTarget
    from gateway.pipeline.callers import Caller
    from gateway.pipeline.request import CallerContext
    from gateway.pipeline.request_body import RequestBody

ForwardRequest = Callable[[RequestContext], Awaitable[UpstreamResponse]]


class WriteQueue(ABC):
    """Stores writes that cannot be delivered now; implemented by the outbox.

    Defined here so that the outbox is imported only where it is enabled.
    """

    @abstractmethod
    def allow_own_entries(self, caller: Caller, target: RequestTarget) -> Caller:
        """Return the caller, permitted to read its own entries whatever else is denied."""

    @abstractmethod
    def accepts_writes_of(self, caller: Caller, header: RequestHeader) -> bool:
        """Return whether a write of this caller with this header may be queued."""

    @abstractmethod
    def retain_body(
        self, caller_context: CallerContext, interaction: Interaction, body: RequestBody
    ) -> None:
        """Make sure that the body of a write which may be queued can be read again."""

    @abstractmethod
    def forward_or_queue(
        self, forward: ForwardRequest, context: RequestContext
    ) -> Awaitable[UpstreamResponse]:
        """Return the response that `forward` gets, or else the queue's. Raises `GatewayError`."""
