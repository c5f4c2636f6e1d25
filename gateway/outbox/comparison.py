"""Comparison of what was sent with what the platform holds. Neither tree is retained."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from gateway import document_limits
from gateway.fhir.content_negotiation import media_type
from gateway.fhir.document_tree import (
    BodyParseError,
    Element,
    child_elements,
    contains_all_of,
    first_text,
    parse_body,
)
from gateway.fhir.interaction import BUNDLES
from gateway.fhir.search_parameters import SearchSupport, filtering_names, ignored_parameters
from gateway.fhir.vocabulary import RESOURCE_TYPES
from gateway.http.content_coding import DECODABLE, decode_body, parse_content_encoding
from gateway.outbox.async_status import first_field_value
from gateway.outbox.attempt_result import AttemptResult, VerificationStatus
from gateway.outbox.entry import QueuedRequest, StoredResponse
from gateway.outbox.write_classification import (
    condition_query,
    conditional_creates,
    searchable_identifiers,
)

# Characters with a special meaning in the value of a search parameter (FHIR R5 search.html, section
# 3.2.1.5.7).
_SPECIAL: Final = re.compile(r"[\\,|$]")
# Characters that stay in a condition, which is percent-encoded already; everything that a URL
# cannot contain is encoded.
_UNQUOTED: Final = "!$%&'()*+,/:;=?@[]~|"
# The member or element `ifMatch` of an entry's request.
_IF_MATCH: Final = re.compile(rb'"ifMatch"\s*+:|<(?:\w++:)?ifMatch\b')
# A Bundle that needs more queries than this is not verified.
_MAX_QUERIES: Final = 16


def _parse_sent(request: QueuedRequest) -> Element | None:
    """Return the body that was sent as a tree; None where it cannot be parsed."""
    if first_field_value(request.fields, b"content-encoding") is not None:
        return None
    return _parse(request)


def _parse(message: QueuedRequest | StoredResponse) -> Element | None:
    try:
        return parse_body(message.body, first_field_value(message.fields, b"content-type"))
    except BodyParseError:
        return None


async def names_version(request: QueuedRequest) -> bool:
    """Return whether a write, or one in its Bundle, applies to one version only (`If-Match`).

    True also for a Bundle in a content coding that cannot be decoded.
    """
    if first_field_value(request.fields, b"if-match") is not None:
        return True
    if request.interaction not in BUNDLES:
        return False
    body = request.body
    coding = parse_content_encoding(first_field_value(request.fields, b"content-encoding"))
    if coding is not None and coding not in DECODABLE:
        return True
    if coding is not None:
        body = await asyncio.to_thread(
            decode_body, body, coding, document_limits.decoded_limit(len(body))
        )
    return not body or _IF_MATCH.search(body) is not None


@dataclass(frozen=True, slots=True)
class VerificationQuery:
    """The search that finds a resource which an earlier attempt may have created.

    `query` is raw: the search for `identifier`, the resource's own, where it has one, else the
    write's condition. `is_conditional`: the write was a conditional create. `bundle_index` is the
    index among a Bundle's conditional creates, None outside a Bundle.
    """

    resource_type: str
    query: str
    identifier: tuple[str, str] | None
    is_conditional: bool
    bundle_index: int | None = None

    def has_only_declared_parameters(self, support: SearchSupport) -> bool:
        """Return whether the platform certainly uses all parameters.

        Each of them is declared, exactly as written.
        """
        names = filtering_names(self.query)
        declared = support.declared or ()
        return bool(names) and all(
            name in declared and not support.is_unusable(name) for name in names
        )


def verification_queries(request: QueuedRequest) -> list[VerificationQuery] | None:
    """Return the queries that verify a write; None where no search could find it.

    For a Bundle these are the queries of all its conditional creates, possibly none.
    """
    sent = _parse_sent(request)
    if sent is None:
        return None
    if request.interaction in BUNDLES:
        entries = enumerate(conditional_creates(sent))
        queries = [_verification_query(*entry, index) for index, entry in entries]
    else:
        queries = [
            _verification_query(first_field_value(request.fields, b"if-none-exist") or "", sent)
        ]
    if len(queries) > _MAX_QUERIES or not all(query.query for query in queries):
        return None
    return queries if all(query.resource_type in RESOURCE_TYPES for query in queries) else None


def _verification_query(
    condition: str, resource: Element, bundle_index: int | None = None
) -> VerificationQuery:
    kind = first_text(resource, "resourceType")
    identifier = next(searchable_identifiers(resource), None)
    criteria = quote(condition_query(condition), safe=_UNQUOTED)
    query = criteria
    if identifier is not None:
        token = "|".join(_SPECIAL.sub(r"\\\g<0>", part) for part in identifier)
        query = f"identifier={quote(token, safe='')}"
    return VerificationQuery(kind, query, identifier, bool(criteria), bundle_index)


def combine_results(findings: list[AttemptResult], request: QueuedRequest) -> AttemptResult:
    """Return the result for a write from the results of its queries.

    The result of a Bundle is conclusive only where those of its entries agree.
    """
    statuses = {result.finding for result in findings} or {VerificationStatus.SAFE_TO_RESEND}
    if len(findings) == 1 and request.interaction not in BUNDLES:
        return findings[0]
    if statuses == {VerificationStatus.PRESENT} and request.interaction == "transaction":
        # A transaction succeeds or fails as a whole (R5 http.html, section 3.2.0.13.2).
        return AttemptResult(StoredResponse(200), VerificationStatus.PRESENT)
    for status in (VerificationStatus.SAFE_TO_RESEND, VerificationStatus.ABSENT):
        if statuses <= {status, VerificationStatus.SAFE_TO_RESEND}:
            return AttemptResult(finding=status)
    return AttemptResult(finding=VerificationStatus.INCONCLUSIVE)


def compare_read(result: StoredResponse, request: QueuedRequest) -> AttemptResult:
    """Return what the response to a read of the same logical id shows about the write."""
    sent, found = _parse_sent(request), _content(result)
    if sent is None or found is None:
        return AttemptResult(finding=VerificationStatus.INCONCLUSIVE)
    if not contains_all_of(found, sent):
        return AttemptResult(finding=VerificationStatus.ABSENT)
    return AttemptResult(result, VerificationStatus.PRESENT)


def compare_search(
    result: StoredResponse,
    request: QueuedRequest,
    wanted: VerificationQuery,
    support: SearchSupport,
) -> AttemptResult:
    """Return what the response to the search of `wanted` shows about the write."""
    sent, bundle = _parse_sent(request), _content(result)
    if sent is None or bundle is None or first_text(bundle, "type") != "searchset":
        return AttemptResult(finding=VerificationStatus.INCONCLUSIVE)
    if wanted.bundle_index is not None:
        sent = list(conditional_creates(sent))[wanted.bundle_index][1]
    matches = [
        resource
        for entry in child_elements(bundle, "entry")
        for resource in child_elements(entry, "resource")
        if first_text(resource, "resourceType") == wanted.resource_type
    ]
    used = wanted.has_only_declared_parameters(support) and not _reports_ignored_parameters(
        result, wanted, support
    )
    if not matches:
        # A server that ignores an unknown parameter would have found something, or reports that it
        # ignored the parameter.
        nothing = first_text(bundle, "total") in ("", "0") and used
        return AttemptResult(
            finding=VerificationStatus.ABSENT if nothing else VerificationStatus.INCONCLUSIVE
        )
    return _compare_match(matches, sent, wanted, used=used)


def _compare_match(
    matches: list[Element], sent: Element, wanted: VerificationQuery, *, used: bool
) -> AttemptResult:
    """Return PRESENT only for a single match with all content that was sent.

    The identifier alone proves nothing: two results may share the number of an order.
    """
    match = matches[0]
    right = (
        used if wanted.identifier is None else wanted.identifier in searchable_identifiers(match)
    )
    if len(matches) > 1 or not right or not contains_all_of(match, sent):
        return AttemptResult(finding=VerificationStatus.INCONCLUSIVE)
    return AttemptResult(_match_response(match), VerificationStatus.PRESENT)


def _reports_ignored_parameters(
    result: StoredResponse, wanted: VerificationQuery, support: SearchSupport
) -> bool:
    xml = media_type(first_field_value(result.fields, b"content-type")).endswith("xml")
    return bool(
        ignored_parameters(
            wanted.query, filtering_names(wanted.query), result.body, support, xml=xml
        )
    )


def _match_response(resource: Element) -> StoredResponse:
    """Return the response for the caller about a resource that the platform holds already."""
    kind, logical_id = (
        first_text(resource, "resourceType"),
        first_text(resource, "id"),
    )
    fields: list[tuple[bytes, bytes]] = []
    for meta in child_elements(resource, "meta"):
        version = first_text(meta, "versionId")
        if version:
            fields.append((b"ETag", f'W/"{version}"'.encode("latin-1", "replace")))
    if logical_id:
        fields.append((b"Location", f"{kind}/{logical_id}".encode("latin-1", "replace")))
    return StoredResponse(200, tuple(fields))


def _content(result: StoredResponse) -> Element | None:
    return None if result.status != 200 or result.reason else _parse(result)
