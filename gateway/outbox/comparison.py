"""Whether the platform has what was sent: both are read here, and let go again."""

from __future__ import annotations

from gateway.fhir import tree
from gateway.fhir.tree import Element
from gateway.outbox.entry import Request, Response
from gateway.outbox.qualifying import searchable
from gateway.outbox.sending import Comparison, Found
from gateway.outbox.status import field_of


def _sent(request: Request) -> Element | None:
    """What was sent; None where that cannot be read."""
    if field_of(request.fields, b"content-encoding") is not None:
        return None
    try:
        return tree.read(request.body, field_of(request.fields, b"content-type"))
    except tree.Unreadable:
        return None


def sought(request: Request) -> tuple[str, tuple[str, str]] | None:
    """Type and identifier by which what was sent can be looked for."""
    sent = _sent(request)
    identifier = None if sent is None else next(searchable(sent), None)
    if sent is None or identifier is None:
        return None
    return tree.first(sent, "resourceType"), identifier


def judged_read(result: Response, request: Request) -> Comparison:
    """What the answer to a read of the same id tells."""
    sent, found = _sent(request), _content(result)
    if sent is None or found is None:
        return Comparison(Found.UNCLEAR)
    if not tree.holds(found, sent):
        return Comparison(Found.NO)
    return Comparison(Found.YES, _as_found(result, 200))


def judged_search(result: Response, request: Request, identifier: tuple[str, str]) -> Comparison:
    """What the answer to a search by one of its identifiers tells."""
    sent, bundle = _sent(request), _content(result)
    if sent is None or bundle is None or tree.first(bundle, "type") != "searchset":
        return Comparison(Found.UNCLEAR)
    kind = tree.first(sent, "resourceType")
    matches = [
        resource
        for entry in tree.below(bundle, "entry")
        for resource in tree.below(entry, "resource")
        if tree.first(resource, "resourceType") == kind
    ]
    return _judged(bundle, matches, sent, identifier)


def _judged(
    bundle: Element, matches: list[Element], sent: Element, identifier: tuple[str, str]
) -> Comparison:
    """Only the very same content is taken for it: two results may share an order's number."""
    if not matches:
        # A server that ignores what it does not know would have found something, or says so.
        nothing = tree.first(bundle, "total") in ("", "0") and _looked_for(bundle)
        return Comparison(Found.NO if nothing else Found.UNCLEAR)
    if len(matches) > 1 or identifier not in searchable(matches[0]):
        return Comparison(Found.UNCLEAR)
    if not tree.holds(matches[0], sent):
        return Comparison(Found.UNCLEAR)
    return Comparison(Found.YES, _of_match(matches[0]))


def _looked_for(bundle: Element) -> bool:
    """Whether the self link names the parameter: a server leaves out what it has ignored."""
    links = tree.below(bundle, "link")
    own = [tree.first(link, "url") for link in links if tree.first(link, "relation") == "self"]
    return not own or any("identifier=" in url for url in own)


def _of_match(resource: Element) -> Response:
    """What the caller is told of a resource that the platform has already."""
    kind, own = tree.first(resource, "resourceType"), tree.first(resource, "id")
    fields: list[tuple[bytes, bytes]] = []
    for meta in tree.below(resource, "meta"):
        version = tree.first(meta, "versionId")
        if version:
            fields.append((b"ETag", f'W/"{version}"'.encode("latin-1", "replace")))
    if own:
        fields.append((b"Location", f"{kind}/{own}".encode("latin-1", "replace")))
    return Response(200, tuple(fields), found=True)


def _as_found(response: Response, status: int) -> Response:
    return Response(status, response.fields, response.body, found=True)


def _content(result: Response) -> Element | None:
    if result.status != 200 or result.reason:
        return None
    try:
        return tree.read(result.body, field_of(result.fields, b"content-type"))
    except tree.Unreadable:
        return None
