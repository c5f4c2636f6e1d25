"""The context of a request, and what its header shows about the caller.

The caller context is computed once. Old systems send the same header with every request of a
connection. The context is cached per connection and reused while requests repeat the header octet
for octet and the handler is the same. Without this cache a read takes 1.13 times the processor time
interpreted (1.11 to 1.16 in single rounds) and 1.08 times compiled (1.05 to 1.14; `small-32` of
`make bench`, Intel Xeon model 167, November 2026).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from gateway.exchange import Exchange
from gateway.fhir.interaction import Interaction, named_type
from gateway.http.headers import (
    SECRET,
    RawHeaders,
    RequestHeader,
    remove_fields,
)
from gateway.http.request_target import RequestTarget
from gateway.http.server.request_parser import HttpVersion11, RequestMessage
from gateway.pipeline.callers import AssertedIdentity, Caller
from gateway.pipeline.response_writer import DownstreamWriter

if TYPE_CHECKING:
    from gateway.errors import GatewayError
    from gateway.fhir.conditional_writes import Condition
    from gateway.http.server.caller_connection import IncomingRequest
    from gateway.pipeline.link_translation import LinkTranslator
    from gateway.pipeline.request_body import MemoryBudget, RequestBody

# Charsets of plain text that FHIR permits as well.
_CHARSETS: Final = (b"utf-8", b"utf8", b"us-ascii")
_CONTENT_TYPE: Final = frozenset((b"content-type",))


class CallerContext:
    """The validated header of a request, its caller and the link translator for it.

    Cached per connection and reused while requests repeat the header octet for octet.

    * `accept`: the value of Accept.
    * `assumed_type`: the media type that the settings name for the untyped body, if they do.
    * `asserted_identity`: the user and purpose that the caller asserts, where the settings name
      fields for that.
    * `header`: the parsed header, for the `RequestContext` of each request that repeats it.
    * `upstream_field_lines`: the fields as they are sent to the platform.
    * `unforwarded_fields`: the names, as received, of the fields that are not sent and may be
      missed.
    * `remote`: the caller's address, resolved through trusted proxies.

    The parameter `handler` is the one that validated the header.
    """

    __slots__ = (
        "_handler",
        "_is_http11",
        "_raw",
        "accept",
        "asserted_identity",
        "assumed_type",
        "caller",
        "header",
        "link_translator",
        "remote",
        "unforwarded_fields",
        "upstream_field_lines",
    )

    def __init__(
        self,
        request: IncomingRequest,
        header: RequestHeader,
        handler: object,
        *,
        caller: Caller,
        remote: str,
        link_translator: LinkTranslator,
    ) -> None:
        self._raw: RawHeaders = request.message.raw_headers
        self._handler = handler
        # Other rules apply to older versions, so that the context is not reused for them.
        self._is_http11 = request.message.version is HttpVersion11
        self.header = header
        self.assumed_type = caller.content_type if has_untyped_body(header) else None
        self.caller = caller
        self.remote = remote
        self.link_translator = link_translator
        self.upstream_field_lines = link_translator.request_field_lines(header)
        self.unforwarded_fields = tuple(dict.fromkeys(header.unforwarded))
        self.asserted_identity: AssertedIdentity | None = None
        if caller.user_header is not None or caller.purpose_header is not None:
            self.asserted_identity = asserted = AssertedIdentity(caller, self._raw)
            self.upstream_field_lines = asserted.strip_fields(self.upstream_field_lines)
            self.unforwarded_fields = tuple(asserted.strip_fields(list(self.unforwarded_fields)))
        self.accept = header.text(b"accept")

    @property
    def is_cacheable(self) -> bool:
        """Whether later requests may be compared with this one.

        The duration of a comparison reveals how many octets are equal. A header with a secret must
        therefore not be compared with the previous one, which may be of another caller where a
        proxy shares its connections.
        """
        return self._is_http11 and not any(name.lower() in SECRET for name, _ in self._raw)


def has_untyped_body(header: RequestHeader) -> bool:
    """Return whether there is a body without a declared type, or declared as plain text."""
    values = header.values
    if b"transfer-encoding" not in values and not values.get(b"content-length", b"").strip(b"0"):
        return False
    kind = values.get(b"content-type", b"").partition(b";")[0]
    return kind.strip().lower() in (b"", b"text/plain")


def cached_context(
    cached: object, message: RequestMessage, handler: object
) -> CallerContext | None:
    """Return the context that the connection has cached if this message repeats its header."""
    if (
        isinstance(cached, CallerContext)
        and message.raw_headers == cached._raw
        and cached._handler is handler
        and message.version is HttpVersion11
    ):
        return cached
    return None


class RequestContext:
    """A request and everything known about it, from the start of its exchange to its account.

    The handler sets the attributes without a value one after the other, as they become known.
    Leaving the `with` block of the context ends the exchange, by `finish`.

    * `downstream`: the caller's connection.
    * `admitted`: the caller whose slot the request occupies.
    * `caller_context`: the parsed header and the identified caller.
    * `received_body`: the body that the caller sends, `body` the one that the platform gets.
    * `field_lines`: the field lines for the platform; those of the caller context unless the outbox
      removes some.
    * `conditions`: returns the conditions found so far; those of a Bundle are found while its body
      is streamed. None where the request has none, or without the condition guard.
    * `queue_budget`: for the body of a write that may be queued; None where it may not be.
    * `forwarding_error`: why the request must not be forwarded now; it may be queued.
    """

    __slots__ = (
        "_finish",
        "admitted",
        "body",
        "caller",
        "caller_context",
        "conditions",
        "downstream",
        "exchange",
        "field_lines",
        "forwarding_error",
        "header",
        "interaction",
        "queue_budget",
        "received_body",
        "request",
        "target",
    )

    target: RequestTarget
    caller_context: CallerContext
    caller: Caller
    interaction: Interaction
    field_lines: list[bytes]

    def __init__(
        self,
        request: IncomingRequest,
        header: RequestHeader,
        exchange: Exchange,
        downstream: DownstreamWriter,
        finish: Callable[[RequestContext], None],
    ) -> None:
        self._finish = finish
        self.request = request
        self.header = header
        self.exchange = exchange
        self.downstream = downstream
        self.admitted: Caller | None = None
        self.received_body: RequestBody | None = None
        self.body: RequestBody | None = None
        self.conditions: Callable[[], tuple[Condition, ...]] | None = None
        self.queue_budget: MemoryBudget | None = None
        self.forwarding_error: GatewayError | None = None

    def __enter__(self) -> RequestContext:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is asyncio.CancelledError:
            self.downstream.abort()
        self._finish(self)

    def declare_content_type(self) -> None:
        """Declare the type of an untyped body if the settings of its caller name one.

        Text in another encoding than FHIR's keeps its type, and so does a body that is stored as a
        Binary, which may really be text.
        """
        assumed_type = self.caller_context.assumed_type
        if assumed_type is None:
            return
        declared = self.header.values.get(b"content-type", b"").lower()
        if b"charset" in declared and not declared.strip(b' \t;"').endswith(_CHARSETS):
            return
        if self.interaction.resource == "Binary" and self.interaction.code in ("create", "update"):
            return
        self.header = replace(
            self.header, values={**self.header.values, b"content-type": assumed_type}
        )
        field_lines = remove_fields(self.field_lines, _CONTENT_TYPE)
        self.field_lines = [*field_lines, b"Content-Type: %s\r\n" % assumed_type]

    @property
    def has_limited_bundle(self) -> bool:
        """Whether this is a Bundle of requests, not yet checked, of a caller with restrictions."""
        return self.interaction.code == "transaction" and self.caller.permissions.is_restricted

    @property
    def type_name(self) -> str:
        """The resource type that is written or searched, as the platform spells it; "" for none."""
        label = self.interaction.resource
        return label if label != "other" else named_type(self.target.path)
