"""What a limited caller may send in a Bundle: the rules, read anew and slowly.

Nothing of the gateway is imported. A Bundle is allowed when its type and each of its requests are,
and when there is only one way to read it. The rules are those of the settings (`callers[].allow`)
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


class RefusedError(Exception):
    """The Bundle is not allowed, or not plain."""


@dataclass
class Allow:
    """A caller's limits, as in the settings."""

    interactions: tuple[str, ...] = (ANY,)
    resources: tuple[str, ...] = (ANY,)
    operations: tuple[str, ...] | None = None

    def does(self, interaction: str) -> bool:
        """Return whether the interaction is listed."""
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
        names(bundle, BUNDLE)
        want(text(bundle, "resourceType") == "Bundle")
        kind = text(bundle, "type")
        want(kind in ("batch", "transaction") and allow.does(kind))
        for entry in bundle.get("entry", []):
            check(allow, base, entry)
    except RefusedError:
        return False
    return True


def want(condition: object) -> None:
    """Refuse unless the condition holds."""
    if not condition:
        raise RefusedError


def decoded(coding: str | None, sent: bytes) -> bytes:
    """Return the content: plain, or in gzip, and in nothing else."""
    if (coding or "identity").strip().lower() == "identity":
        return sent
    want((coding or "").strip().lower() in ("gzip", "x-gzip"))
    try:
        return gzip.decompress(sent)
    except (OSError, EOFError, zlib.error):
        raise RefusedError from None


def read(content_type: str | None, body: bytes) -> dict[str, list[Any]]:
    """Return the Bundle, each member as a list, by the syntax that the Content-Type names."""
    kind, *parameters = [part.strip().lower() for part in (content_type or "").split(";")]
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        want("," not in parameter)
        want(not name.startswith("charset") or value.strip().strip('"') in ("utf-8", "us-ascii"))
    try:
        whole = body.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RefusedError from None
    if kind in ("", "text/plain"):
        xml = whole.lstrip()[:1] == "<"
    else:
        want(match := re.fullmatch(r"(?:application|text)/(?:[a-z0-9.-]+\+)?(json|xml)", kind))
        xml = bool(match) and match[1] == "xml"
    return read_xml(whole) if xml else read_json(whole)


def read_json(whole: str) -> dict[str, list[Any]]:
    """Return what JSON holds that every parser understands alike."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, list[Any]]:
        want(len({name for name, _ in pairs}) == len(pairs))
        return {name: flat(value) for name, value in pairs}

    def never(_: str) -> None:
        raise RefusedError

    try:
        found = json.loads(whole, object_pairs_hook=once, parse_constant=never)
    except ValueError:
        raise RefusedError from None
    want(isinstance(found, dict))
    return dict(found)


def flat(value: Any) -> list[Any]:
    """Return the values of a member; null is none, and a list of one is that one."""
    if isinstance(value, list):
        return [each for item in value for each in flat(item)]
    return [] if value is None else [value]


def read_xml(whole: str) -> dict[str, list[Any]]:
    """Return the same for XML, where only FHIR's elements and attributes stand."""
    want("<!DOCTYPE" not in whole and "\0" not in whole)
    declared = re.match(r"<\?xml\s[^>]*?\?>", whole)
    if declared:
        version = re.search(r"version\s*=\s*[\"']([^\"']*)", declared[0])
        encoding = re.search(r"encoding\s*=\s*[\"']([^\"']*)", declared[0])
        want(version and version[1] == "1.0")
        want(not encoding or encoding[1].lower() in ("utf-8", "us-ascii"))
    try:
        root = ElementTree.fromstring(whole.encode())  # noqa: S314 - made by the test itself
    except (ElementTree.ParseError, ValueError, LookupError):
        raise RefusedError from None
    root.attrib.clear()
    plain(root)
    want(root.tag == f"{FHIR}Bundle")
    return {**members(root), "resourceType": ["Bundle"]}


def plain(node: ElementTree.Element) -> None:
    """Refuse other namespaces, other attributes, and a resource that is not alone."""
    name = node.tag.removeprefix(FHIR)
    want(node.tag.startswith(FHIR))
    want(set(node.attrib) <= {"value", "id", *(["url"] if name in EXTENSIONS else [])})
    children = [child for child in node if child.tag != NARRATIVE]
    resources = [child for child in children if child.tag.removeprefix(FHIR)[:1].isupper()]
    if resources:
        want(len(children) == 1 and not node.attrib and not name[:1].isupper())
    want(not name[:1].isupper() or f"{FHIR}resourceType" not in [child.tag for child in node])
    for child in children:
        plain(child)


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


def names(node: Any, known: str) -> None:
    """Refuse what is no element, and elements that the specification does not name."""
    want(isinstance(node, dict) and set(node) <= set(known.split()))


def text(node: dict[str, list[Any]], name: str) -> str:
    """Return the one text of a member."""
    values = node.get(name, [])
    want(len(values) == 1 and isinstance(values[0], str))
    return str(values[0])


def element(node: dict[str, list[Any]], name: str) -> dict[str, list[Any]]:
    """Return the one element of a member."""
    values = node.get(name, [])
    want(len(values) == 1 and isinstance(values[0], dict))
    return dict(values[0])


def check(allow: Allow, base: str, entry: Any) -> None:
    """Refuse an entry whose request or resource is not allowed."""
    names(entry, ENTRY)
    request = element(entry, "request")
    names(request, REQUEST)
    method = text(request, "method")
    want(method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"))
    path, query = address(base, text(request, "url"))
    code, types, operation = meaning(method, path)
    want(allow.does(code))
    for kind in types:
        want(allow.sees(kind))
    want(code != "operation" or allow.calls(operation))
    limited = ANY not in allow.resources and code != "operation"
    parameters(query, allow, limited=limited)
    if "ifNoneExist" in request:
        condition = text(request, "ifNoneExist").strip()
        want(" " not in condition and "\t" not in condition)
        parameters(condition.removeprefix("?"), allow, limited=ANY not in allow.resources)
    if entry.get("resource"):
        resource = element(entry, "resource")
        kind = text(resource, "resourceType")
        want(re.fullmatch("[A-Z][A-Za-z]+", kind))
        want([name.lower() for name in resource].count("resourcetype") == 1)
        fits(allow, method, code, path, kind)


def fits(allow: Allow, method: str, code: str, path: list[str], kind: str) -> None:
    """Refuse a resource that is not of the request's type, or not of an allowed one."""
    if code == "operation" and kind == "Parameters":
        return
    if code == "patch" and kind in ("Parameters", "Binary"):
        return
    if code in ("create", "update", "patch"):
        want(kind == path[0])
    want(not (code.startswith("search") and method == "POST"))
    want(allow.sees(kind))


def address(base: str, url: str) -> tuple[list[str], str]:
    """Return the decoded segments of the path below the base, and the raw query."""
    want(url and re.fullmatch("[!-~]+", url) and "#" not in url)
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
        plain = [unquote(segment, errors="strict") for segment in segments]
        unquote(query, errors="strict")
    except UnicodeDecodeError:
        raise RefusedError from None
    want("//" not in url.partition("?")[0] and not re.search("%(?![0-9A-Fa-f]{2})", path))
    # Only characters of which FHIR makes paths; another may be read in two ways.
    want(
        all(re.fullmatch(r"[A-Za-z0-9\-._$*]+", each) and each not in (".", "..") for each in plain)
    )
    return plain, query


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
        want(where in ([], ["T"], ["T", "id"], ["T", "id", "_history", "version"]))
        want(verb in ("GET", "POST") and path[0] != "$export-poll-status")
        return "operation", types, path[-1].removeprefix("$")
    if shape[:2] == ["T", "id"] and shape[2:] in (["T"], ["*"], ["_search"], ["T", "_search"]):
        want(verb == "GET" or (verb == "POST" and shape[-1] == "_search"))
        return "search-type", [path[0], path[2] if shape[2] == "T" else ANY], ""
    code = SHAPES.get((verb, " ".join(shape)))
    want(code)
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


def parameters(query: str, allow: Allow, *, limited: bool) -> None:
    """Refuse parameters that change the request, or that reach types which are not allowed."""
    for pair in filter(None, re.split("[&;]", query)):
        raw, equals, value = pair.partition("=")
        name = unquote_plus(raw)
        want(name.partition(":")[0].strip().lower() not in ("_method", "_query", "_graph"))
        if limited:
            want(equals)
            reaches(name, unquote_plus(value), allow)


def reaches(name: str, value: str, allow: Allow) -> None:
    """Refuse a parameter that concerns a type which is not allowed, or is not named."""
    base = name.partition(":")[0].lower()
    if base in ("_include", "_revinclude"):
        want(re.fullmatch("_(rev)?include(:(iterate|recurse))?", name, re.IGNORECASE))
        parts = value.split(":")
        want(len(parts) in (2, 3) and all(re.fullmatch("[A-Za-z-]+", part) for part in parts))
        want(len(parts) == 3 or base == "_revinclude")
        want(all(allow.sees(kind) for kind in (parts[0], *parts[2:])))
    elif base == "_has":
        want(match := re.fullmatch("_has:([A-Za-z]+):[a-z-]+:(.+)", name, re.IGNORECASE))
        want(match and allow.sees(match[1]))
        reaches(match[2] if match else "", value, allow)
    elif "." in name:
        first, _, rest = name.partition(".")
        parameter, _, kind = first.partition(":")
        want(allow.sees(kind or ("Patient" if parameter == "patient" else "?")))
        reaches(rest, value, allow)
    elif base == "_sort":
        for key in value.split(","):
            reaches(key.strip().removeprefix("-"), "", allow)
    else:
        known = base in ABOUT_MATCHES.lower().split()
        want(
            known or re.fullmatch(r"[a-z][a-z\-]*(:(exact|not|missing|identifier|Patient))?", name)
        )
