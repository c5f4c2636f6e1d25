"""A request on its way to the platform, with all that is known of it by then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.exchange import Exchange
from gateway.fhir.address import named_type
from gateway.fhir.conditions import Condition
from gateway.fhir.interaction import Interaction
from gateway.http.headers import RequestHeader
from gateway.http.target import RequestTarget
from gateway.pipeline.caller_memo import CallerContext
from gateway.pipeline.caller_side import DownstreamWriter
from gateway.pipeline.callers import Caller
from gateway.pipeline.request_body import RequestBody


@dataclass(slots=True)
class RequestContext:
    """A request as it came, and who sent it; `caller_context` tells how he speaks, `downstream` if
    he left.

    `lines` are its fields as the platform gets them, the memo's unless the outbox keeps some.
    `conditions` gives those that it was found to depend on so far: a Bundle streams by.
    """

    exchange: Exchange
    caller: Caller
    interaction: Interaction
    target: RequestTarget
    caller_context: CallerContext
    body: RequestBody | None
    downstream: DownstreamWriter
    conditions: Callable[[], tuple[Condition, ...]] | None = None
    lines: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.lines = self.caller_context.upstream_field_lines

    @property
    def is_guarded(self) -> bool:
        """Whether a guard may have something to say to the caller."""
        return self.interaction.is_search or self.conditions is not None

    @property
    def type_name(self) -> str:
        """The type that is written or searched, as the platform calls it; "" for none."""
        label = self.interaction.resource
        return label if label != "other" else named_type(self.target.path)

    @property
    def header(self) -> RequestHeader:
        """Its header."""
        return self.caller_context.header
