"""What a request's header says about who calls and how he speaks, found out once.

Old systems send the same header with every request of a connection. What was found out about it
stands as long as it comes again, byte for byte, to the same rules.
"""

from __future__ import annotations

from typing import Final

from gateway.fhir.interaction import Interaction
from gateway.http.headers import (
    SECRET,
    FieldRuleCache,
    RawHeaders,
    RequestHeader,
    parse_request_fields,
)
from gateway.http.server.aiohttp_parser import HttpVersion11
from gateway.http.server.connection import IncomingRequest
from gateway.http.server.messages import RequestMessage
from gateway.http.server.peer import local_authority
from gateway.pipeline.asserted import AssertedIdentity
from gateway.pipeline.callers import Caller
from gateway.pipeline.link_translation import LinkTranslator

# A charset of plain text that FHIR has, too.
_CHARSETS: Final = (b"utf-8", b"utf8", b"us-ascii")


class CallerContext:
    """A header that was judged, whom it named, and what translates for him.

    `asserted_identity` is what he says of his user, where the settings name a field for that;
    `rules` is whose judgement it was; `remote` the address that the caller was seen at, `scheme`
    what he came by; `upstream_field_lines` are the fields as they go to the platform, `accept` the
    value of Accept; `may_queue_writes`, set by `rules`, says that his writes may be kept in the
    outbox; `has_untyped_body` that a body comes of which nobody said what it is.
    """

    __slots__ = (
        *("_content_type", "_is_http11", "_raw", "_handler"),
        *(
            "accept",
            "asserted_identity",
            "caller",
            "header",
            "upstream_field_lines",
            "link_translator",
            "may_queue_writes",
            "remote",
            "scheme",
            "has_untyped_body",
        ),
    )

    def __init__(
        self,
        request: IncomingRequest,
        header: RequestHeader,
        rules: object,
        *,
        caller: Caller,
        remote: str,
        links: LinkTranslator,
    ) -> None:
        self._raw: RawHeaders = request.message.raw_headers
        self._handler = rules
        # An older version is judged by other rules.
        self._is_http11 = request.message.version is HttpVersion11
        self.header = header
        self.has_untyped_body = _has_untyped_body(header)
        self._content_type = caller.content_type if self.has_untyped_body else None
        self.caller = caller
        self.remote = remote
        self.scheme = request.scheme
        self.link_translator = links
        self.upstream_field_lines = links.request_field_lines(header)
        self.asserted_identity: AssertedIdentity | None = None
        if caller.user_header is not None or caller.purpose_header is not None:
            self.asserted_identity = AssertedIdentity(caller, self._raw)
            self.upstream_field_lines = self.asserted_identity.strip_fields(
                self.upstream_field_lines
            )
        self.accept = header.text(b"accept")
        self.may_queue_writes = False

    @property
    def is_cacheable(self) -> bool:
        """Whether nothing speaks against comparing the next request with this one.

        Comparing tells by its time how much was alike. A secret must not be compared like that
        with the one before it, which may be another's where a proxy shares its connections.
        """
        # Whether the caller's type stands in depends on the target, too.
        if not self._is_http11 or self._content_type is not None:
            return False
        return not any(name.lower() in SECRET for name, _ in self._raw)

    def set_content_type(self, interaction: Interaction) -> None:
        """Say what an untyped body is, where the settings of its caller tell.

        Text in another encoding than FHIR's stays what it is, and so does what is stored as a
        Binary: that may be text indeed.
        """
        said = self.header.values.get(b"content-type", b"").lower()
        if b"charset" in said and not said.strip(b' \t;"').endswith(_CHARSETS):
            return
        is_binary = interaction.resource == "Binary" and interaction.code in ("create", "update")
        if self._content_type is None or is_binary:
            return
        self.has_untyped_body = False
        self.header.values[b"content-type"] = self._content_type
        field_lines = [
            line
            for line in self.upstream_field_lines
            if not line.lower().startswith(b"content-type:")
        ]
        self.upstream_field_lines = [*field_lines, b"Content-Type: %s\r\n" % self._content_type]

    def matches(self, message: RequestMessage, rules: object) -> bool:
        """Whether all that was found out holds for this message as well."""
        return (
            message.raw_headers == self._raw
            and self._handler is rules
            and message.version is HttpVersion11
        )


def _has_untyped_body(header: RequestHeader) -> bool:
    """Whether there is a body of which nothing is said, or only that it is text."""
    values = header.values
    if b"transfer-encoding" not in values and not values.get(b"content-length", b"").strip(b"0"):
        return False
    kind = values.get(b"content-type", b"").partition(b";")[0]
    return kind.strip().lower() in (b"", b"text/plain")


def cached_context(cached: object, message: RequestMessage, rules: object) -> CallerContext | None:
    """The memo that a connection remembers, if this message repeats it."""
    if isinstance(cached, CallerContext) and cached.matches(message, rules):
        return cached
    return None


def effective_header(request: IncomingRequest, fields: FieldRuleCache) -> RequestHeader:
    """The header; in HTTP/1.0 without a Host the address stands in that the connection came in at.

    Links are made of it.
    """
    header = parse_request_fields(request.message.raw_headers, fields)
    if b"host" not in header.values and (own := local_authority(request.connection.transport)):
        header.values[b"host"] = own.encode("ascii")
    return header
