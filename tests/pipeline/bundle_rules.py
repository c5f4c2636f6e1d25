"""What a limited caller may send in a Bundle: an independent, slow implementation of the rules.

Imports nothing of the gateway. A Bundle is allowed when its type and each of its requests are
allowed and it has only one interpretation. The rules are those of the settings (`callers[].allow`)
and of FHIR R5: http.html (requests), bundle.html (entries), search.html (parameters).
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree

FHIR = "{http://hl7.org/fhir}"
NARRATIVE = "{http://www.w3.org/1999/xhtml}div"
BUNDLE = "resourceType id meta language identifier type timestamp total link entry signature issues"
ENTRY = "id extension link fullUrl resource search request response"
REQUEST = "id extension method url ifNoneMatch ifModifiedSince ifMatch ifNoneExist"
EXTENSIONS = ("extension", "modifierExtension")
ANY = "*"


class RejectedError(Exception):
    """The Bundle is not allowed, or ambiguous."""


@dataclass
class Allow:
    """A caller's limits, as in the settings."""

    interactions: tuple[str, ...] = (ANY,)
    resources: tuple[str, ...] = (ANY,)
    operations: tuple[str, ...] | None = None

    def does(self, interaction: str) -> bool:
        return ANY in self.interactions or interaction in self.interactions

    def sees(self, kind: str) -> bool:
        """Return whether the type is listed; "*" is every type."""
        return ANY in self.resources or kind in self.resources

    def calls(self, operation: str) -> bool:
        """Return whether the operation is listed, which none is where only types are."""
        listed = self.operations
        if listed is None:
            return ANY in self.resources
        return ANY in listed or operation in [name.removeprefix("$") for name in listed]


def allows(
    allow: Allow, base: str, content_type: str | None, coding: str | None, sent: bytes
) -> bool:
    """Return whether a caller may send this body to the base; `base` is the platform's URL."""
    try:
        bundle = read(content_type, decoded(coding, sent))
        check_names(bundle, BUNDLE)
        require(text(bundle, "resourceType") == "Bundle")
        kind = text(bundle, "type")
        require(kind in ("batch", "transaction") and allow.does(kind))
        for entry in bundle.get("entry", []):
            check_entry(allow, base, entry)
    except RejectedError:
        return False
    return True


def require(condition: object) -> None:
    if not condition:
        raise RejectedError


def decoded(coding: str | None, sent: bytes) -> bytes:
    """Return the content of an identity or gzip coding; other codings are rejected."""
    if (coding or "identity").strip().lower() == "identity":
        return sent
    require((coding or "").strip().lower() in ("gzip", "x-gzip"))
    try:
        return gzip.decompress(sent)
    except (OSError, EOFError, zlib.error):
        raise RejectedError from None


def read(content_type: str | None, body: bytes) -> dict[str, list[Any]]:
    """Return the Bundle, each member as a list, by the syntax that the Content-Type names."""
    kind, *check_parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    for parameter in check_parameters:
        name, _, value = parameter.partition("=")
        require("," not in parameter)
        require(not name.startswith("charset") or value.strip().strip('"') in ("utf-8", "us-ascii"))
    try:
        whole = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RejectedError from None
    if kind in ("", "text/plain"):
        xml = whole.lstrip()[:1] == "<"
    else:
        require(match := re.fullmatch(r"(?:application|text)/(?:[a-z0-9.-]+\+)?(json|xml)", kind))
        xml = bool(match) and match[1] == "xml"
    return read_xml(whole) if xml else read_json(whole)


def read_json(whole: str) -> dict[str, list[Any]]:
    """Return the members of JSON that all parsers read alike."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, list[Any]]:
        require(len({name for name, _ in pairs}) == len(pairs))
        return {name: flat(value) for name, value in pairs}

    def never(_: str) -> None:
        raise RejectedError

    try:
        found = json.loads(whole, object_pairs_hook=once, parse_constant=never)
    except ValueError:
        raise RejectedError from None
    require(isinstance(found, dict))
    return dict(found)


def flat(value: Any) -> list[Any]:
    """Return the values of a member: none for null, one for a list of one."""
    if isinstance(value, list):
        return [each for item in value for each in flat(item)]
    return [] if value is None else [value]


def read_xml(whole: str) -> dict[str, list[Any]]:
    """Return the same for XML with only FHIR's elements and attributes."""
    require("<!DOCTYPE" not in whole and "\0" not in whole)
    declared = re.match(r"<\?xml\s[^>]*?\?>", whole)
    if declared:
        version = re.search(r"version\s*=\s*[\"']([^\"']*)", declared[0])
        encoding = re.search(r"encoding\s*=\s*[\"']([^\"']*)", declared[0])
        require(version and version[1] == "1.0")
        require(not encoding or encoding[1].lower() in ("utf-8", "us-ascii"))
    try:
        root = ElementTree.fromstring(whole.encode())  # noqa: S314 - made by the test itself
    except (ElementTree.ParseError, ValueError, LookupError):
        raise RejectedError from None
    root.attrib.clear()
    check_element(root)
    require(root.tag == f"{FHIR}Bundle")
    return {**members(root), "resourceType": ["Bundle"]}


def check_element(node: ElementTree.Element) -> None:
    """Reject other namespaces, other attributes, and a resource beside other content."""
    name = node.tag.removeprefix(FHIR)
    require(node.tag.startswith(FHIR))
    require(set(node.attrib) <= {"value", "id", *(["url"] if name in EXTENSIONS else [])})
    children = [child for child in node if child.tag != NARRATIVE]
    resources = [child for child in children if child.tag.removeprefix(FHIR)[:1].isupper()]
    if resources:
        require(len(children) == 1 and not node.attrib and not name[:1].isupper())
    require(not name[:1].isupper() or f"{FHIR}resourceType" not in [child.tag for child in node])
    for child in children:
        check_element(child)


def members(node: ElementTree.Element) -> dict[str, list[Any]]:
    """Return the children of an element in the shape of JSON."""
    found: dict[str, list[Any]] = {}
    if "id" in node.attrib:
        found["id"] = [node.attrib["id"]]
    for child in node:
        name = child.tag.removeprefix(FHIR)
        if child.tag == NARRATIVE:
            continue
        if name[:1].isupper():
            return {**members(child), "resourceType": [name]}
        inner = members(child)
        if "value" in child.attrib:
            found.setdefault(name, []).append(child.attrib["value"])
            if inner:
                found.setdefault(f"_{name}", []).append(inner)
        else:
            found.setdefault(name, []).append(inner)
    return found


def check_names(node: Any, known: str) -> None:
    """Reject members that are not objects, and elements that FHIR does not define."""
    require(isinstance(node, dict) and set(node) <= set(known.split()))


def text(node: dict[str, list[Any]], name: str) -> str:
    values = node.get(name, [])
    require(len(values) == 1 and isinstance(values[0], str))
    return str(values[0])


def element(node: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    values = node.get(name, [])
    require(len(values) == 1 and isinstance(values[0], dict))
    return dict(values[0])


def check_entry(allow: Allow, base: str, entry: Any) -> None:
    """Reject an entry whose request or resource is not allowed."""
    check_names(entry, ENTRY)
    request = element(entry, "request")
    check_names(request, REQUEST)
    method = text(request, "method")
    require(method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
    path, query = address(base, text(request, "url"))
    code, types, operation = meaning(method, path)
    require(allow.does(code))
    for kind in types:
        require(allow.sees(kind))
    require(code != "operation" or allow.calls(operation))
    limited = ANY not in allow.resources and code != "operation"
    check_parameters(query, allow, limited=limited)
    if "ifNoneExist" in request:
        condition = text(request, "ifNoneExist").strip()
        require(" " not in condition and "\t" not in condition)
        check_parameters(condition.removeprefix("?"), allow, limited=ANY not in allow.resources)
    if entry.get("resource"):
        resource = element(entry, "resource")
        kind = text(resource, "resourceType")
        require(re.fullmatch("[A-Z][A-Za-z]+", kind))
        require([name.lower() for name in resource].count("resourcetype") == 1)
        check_resource(allow, method, code, path, kind)


def check_resource(allow: Allow, method: str, code: str, path: list[str], kind: str) -> None:
    """Reject a resource of another type than its request's, or of a type that is not allowed."""
    if code == "operation" and kind == "Parameters":
        return
    if code == "patch" and kind in ("Parameters", "Binary"):
        return
    if code in ("create", "update", "patch"):
        require(kind == path[0])
    require(not (code.startswith("search") and method == "POST"))
    require(allow.sees(kind))


def address(base: str, url: str) -> tuple[list[str], str]:
    """Return the decoded segments of the path below the base, and the raw query."""
    require(url and re.fullmatch("[!-~]+", url) and "#" not in url)
    root = "/" + base.split("/", 3)[3]
    for prefix in (
        base,
        re.sub("^http", "https", base),
        base.upper().replace(root.upper(), root),
        root,
    ):
        if url.startswith(prefix) and url[len(prefix) : len(prefix) + 1] in ("", "/", "?"):
            url = url[len(prefix) :] or "/"
            break
    path, _, query = url.partition("?")
    path = path.removeprefix("/").removesuffix("/")
    segments = path.split("/") if path else []
    try:
        check_element = [unquote(segment, errors="strict") for segment in segments]
        unquote(query, errors="strict")
    except UnicodeDecodeError:
        raise RejectedError from None
    require("//" not in url.partition("?")[0] and not re.search("%(?![0-9A-Fa-f]{2})", path))
    # Only characters of which FHIR makes paths; another may be read in two ways.
    require(
        all(
            re.fullmatch(r"[A-Za-z0-9\-._$*]+", each) and each not in (".", "..")
            for each in check_element
        )
    )
    return check_element, query


def meaning(method: str, path: list[str]) -> tuple[str, list[str], str]:
    """Return interaction, the types that it concerns, and the operation (http.html, 3.2.0)."""
    verb = "GET" if method == "HEAD" else method
    shape = ["T" if re.fullmatch("[A-Z][A-Za-z]{1,63}", each) else each for each in path]
    if len(shape) > 1 and shape[0] == "T" and re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", path[1]):
        shape[1] = "id"
    if len(shape) > 3 and shape[2] == "_history" and re.fullmatch(r"[A-Za-z0-9\-.]{1,64}", path[3]):
        shape[3] = "version"
    types = [path[0]] if shape[:1] == ["T"] else [ANY]
    if shape and shape[-1].startswith("$"):
        where = shape[:-1]
        require(where in ([], ["T"], ["T", "id"], ["T", "id", "_history", "version"]))
        require(verb in ("GET", "POST") and path[0] != "$export-poll-status")
        return "operation", types, path[-1].removeprefix("$")
    if shape[:2] == ["T", "id"] and shape[2:] in (["T"], ["*"], ["_search"], ["T", "_search"]):
        require(verb == "GET" or (verb == "POST" and shape[-1] == "_search"))
        return "search-type", [path[0], path[2] if shape[2] == "T" else ANY], ""
    code = SHAPES.get((verb, " ".join(shape)))
    require(code)
    return str(code), [] if code == "capabilities" else types, ""


SHAPES = {
    ("GET", ""): "search-system",
    ("DELETE", ""): "delete",
    ("GET", "metadata"): "capabilities",
    ("GET", "_history"): "history-system",
    ("GET", "_search"): "search-system",
    ("POST", "_search"): "search-system",
    ("GET", "T"): "search-type",
    ("POST", "T"): "create",
    ("PUT", "T"): "update",
    ("PATCH", "T"): "patch",
    ("DELETE", "T"): "delete",
    ("GET", "T _search"): "search-type",
    ("POST", "T _search"): "search-type",
    ("GET", "T _history"): "history-type",
    ("GET", "T id"): "read",
    ("PUT", "T id"): "update",
    ("PATCH", "T id"): "patch",
    ("DELETE", "T id"): "delete",
    ("GET", "T id _history"): "history-instance",
    ("GET", "T id _history version"): "vread",
}
ABOUT_MATCHES = "_id _lastUpdated _tag _profile _count _sort _summary _elements _format _total"


def check_parameters(query: str, allow: Allow, *, limited: bool) -> None:
    """Reject parameters that change the request or reach types that are not allowed."""
    for pair in filter(None, re.split("[&;]", query)):
        raw, equals, value = pair.partition("=")
        name = unquote_plus(raw)
        require(name.partition(":")[0].strip().lower() not in ("_method", "_query", "_graph"))
        if limited:
            require(equals)
            check_parameter(name, unquote_plus(value), allow)


def check_parameter(name: str, value: str, allow: Allow) -> None:
    """Reject a parameter of a type that is not allowed, or that is not named."""
    base = name.partition(":")[0].lower()
    if base in ("_include", "_revinclude"):
        require(re.fullmatch("_(rev)?include(:(iterate|recurse))?", name, re.IGNORECASE))
        parts = value.split(":")
        require(len(parts) in (2, 3) and all(re.fullmatch("[A-Za-z-]+", part) for part in parts))
        require(len(parts) == 3 or base == "_revinclude")
        require(all(allow.sees(kind) for kind in (parts[0], *parts[2:])))
    elif base == "_has":
        require(match := re.fullmatch("_has:([A-Za-z]+):[a-z-]+:(.+)", name, re.IGNORECASE))
        require(match and allow.sees(match[1]))
        check_parameter(match[2] if match else "", value, allow)
    elif "." in name:
        first, _, rest = name.partition(".")
        parameter, _, kind = first.partition(":")
        require(allow.sees(kind or ("Patient" if parameter == "patient" else "?")))
        check_parameter(rest, value, allow)
    elif base == "_sort":
        for key in value.split(","):
            check_parameter(key.strip().removeprefix("-"), "", allow)
    else:
        known = base in ABOUT_MATCHES.lower().split()
        require(
            known or re.fullmatch(r"[a-z][a-z\-]*(:(exact|not|missing|identifier|Patient))?", name)
        )
