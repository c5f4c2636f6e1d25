"""The context of a request on its way to the platform."""

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
    """A request and everything known about it.

    * `caller_context`: the parsed header and the identified caller.
    * `downstream`: the caller's connection.
    * `field_lines`: the field lines for the platform; those of the caller context unless the outbox
      removes some.
    * `body`: None where the platform gets none.
    * `conditions`: returns the conditions found so far; those of a Bundle are found while its body
      is streamed. None where the request has none, or without the condition guard.
    """

    exchange: Exchange
    caller: Caller
    interaction: Interaction
    target: RequestTarget
    caller_context: CallerContext
    body: RequestBody | None
    downstream: DownstreamWriter
    conditions: Callable[[], tuple[Condition, ...]] | None = None
    field_lines: list[bytes] = field(init=False)

    def __post_init__(self) -> None:
        self.field_lines = self.caller_context.upstream_field_lines

    @property
    def is_guarded(self) -> bool:
        """Whether a guard may have a warning for the caller."""
        return self.interaction.is_search or self.conditions is not None

    @property
    def type_name(self) -> str:
        """The resource type that is written or searched, as the platform spells it; "" for none."""
        label = self.interaction.resource
        return label if label != "other" else named_type(self.target.path)

    @property
    def header(self) -> RequestHeader:
        """The request's header."""
        return self.caller_context.header
