"""What the parameters of a search concern, and which of them the platform ignored.

The parameters alone determine which resource types a search concerns. The query of a URL, the form
of a search by POST and the value of If-None-Exist are treated alike. The result decides what a
caller limited to some types may search, so the platform must not interpret the parameters
differently: they are parsed as the most lenient server would (`;` separates too, names are
case-insensitive), and a parameter in doubt counts as outside the types.

A server that does not know a parameter may leave it out and return everything (FHIR R5 search,
section 3.2.1.4 "Handling errors"); the national platform does. The parameters that were used stand
in the Bundle's `self` link, those that can be used in the CapabilityStatement. Some platforms
report parameters as used that filter nothing: `fhir.unfiltered` of the settings lists these. A
server may also add an OperationOutcome to the matches (same section). An issue counts by its code
and by the names of parameters in it; what else its text says is not read.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from json import JSONDecoder
from typing import Any, Final
from urllib.parse import unquote_plus

import orjson

from gateway.fhir.capability_statement import json_objects
from gateway.fhir.interaction import MAX_NAME_LENGTH, MAX_PARAMETERS
from gateway.fhir.json_text import plainly_spelled
from gateway.fhir.vocabulary import RESOURCE_TYPES

_QUOTED: Final = b'"OperationOutcome"'
# Objects around the word that are parsed; `resourceType` is nearly always the first member.
_MAX_TRIED_OBJECTS: Final = 64
_MAX_OUTCOMES: Final = 16
_DECODE: Final = JSONDecoder().raw_decode
_XML: Final = re.compile(rb"<OperationOutcome\b.*?</OperationOutcome>", re.DOTALL)
_XML_ISSUE: Final = re.compile(r"<issue>.*?</issue>", re.DOTALL)
_XML_CODE: Final = re.compile(r"<code\s+value=\"([^\"]*)\"")
_XML_VALUE: Final = re.compile(r"<(?:diagnostics|text|expression|location)\s+value=\"([^\"]*)\"")
# Others are about the search as a whole: `not-found` says that nothing matched.
_ABOUT_PARAMETERS: Final = frozenset(("not-supported", "invalid", "value", "code-invalid"))


def _rejected_parameters(body: bytes, names: Iterable[str], *, xml: bool) -> Collection[str]:
    """Return those of `names` that `outcome` entries at the start of a searchset reject."""
    if not xml:
        body = plainly_spelled(body)
    if b"OperationOutcome" not in body:
        return ()
    found: set[str] = set()
    for code, text in _xml_issues(body) if xml else _json_issues(body):
        if code in _ABOUT_PARAMETERS:
            # A `not-supported` without a text may be about any of the parameters.
            is_about_any = code == "not-supported" and not text.strip()
            found.update(name for name in names if is_about_any or _mentions(text, name))
    return found


def _mentions(text: str, name: str) -> bool:
    base = name.partition(":")[0]
    return re.search(rf"(?<![\w.\-]){re.escape(base)}(?![\w\-])", text) is not None


def _json_issues(body: bytes) -> Iterator[tuple[str, str]]:
    at = body.find(_QUOTED)
    for _ in range(_MAX_OUTCOMES):
        if at < 0:
            return
        for issue in json_objects(_outcome_around(body, at).get("issue")):
            yield str(issue.get("code")), " ".join(_texts(issue)).replace("http.", "")
        at = body.find(_QUOTED, at + 1)


def _outcome_around(body: bytes, at: int) -> dict[str, Any]:
    """Return the resource whose type stands at `at`, {} where no complete one is found."""
    begin = at
    for _ in range(_MAX_TRIED_OBJECTS):
        begin = body.rfind(b"{", 0, begin)
        if begin < 0:
            break
        try:
            value, _ = _DECODE(body[begin:].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("resourceType") == "OperationOutcome":
            return value
    return {}


def _texts(issue: dict[str, Any]) -> Iterator[str]:
    details = issue.get("details")
    yield str(issue.get("diagnostics") or "")
    yield str(details.get("text") or "") if isinstance(details, dict) else ""
    for member in ("expression", "location"):
        values = issue.get(member)
        yield from map(str, values if isinstance(values, list) else ())


def _xml_issues(body: bytes) -> Iterator[tuple[str, str]]:
    for outcome in _XML.findall(body)[:_MAX_OUTCOMES]:
        for issue in _XML_ISSUE.findall(outcome.decode("utf-8", "replace")):
            code = _XML_CODE.search(issue)
            text = " ".join(html.unescape(value) for value in _XML_VALUE.findall(issue))
            yield "" if code is None else code[1], text.replace("http.", "")


# No real search has more, and parsing more would block the event loop.
_MAX_PAIRS: Final = 1000
_MAX_NAME_LENGTH: Final = 256
_MAX_VALUE_LENGTH: Final = 2048
# Parameters that concern only the searched resources and the form of the response.
_HARMLESS: Final = frozenset(
    """
    _id _lastupdated _tag _profile _security _source _language _text _content _score _since _at
    _count _page _cursor _offset _maxresults _total _summary _elements _format _pretty
    """.split()
)
_MODIFIERS: Final = frozenset(
    """
    missing exact contains text text-advanced code-text not identifier above below in not-in
    of-type
    """.split()
)
# Parameters that turn the request into another one, by a method or an operation.
_DISGUISES: Final = frozenset(("_method", "_query", "_graph"))
# The only reference parameter with a single target type (R5, clinical-patient).
_TARGETS: Final = {"patient": "Patient"}
_SEPARATOR: Final = re.compile("[&;]")
_PARAMETER: Final = r"[A-Za-z][A-Za-z0-9_\-]*"
_CHAIN_STEP: Final = re.compile(rf"({_PARAMETER})(?::([A-Za-z\-]+))?(?:\.(.+))?").fullmatch
_COMMON: Final = re.compile(r"(_[A-Za-z]+)(?::([A-Za-z\-]+))?").fullmatch
_REVERSE: Final = re.compile(rf"_has:([A-Za-z]+):{_PARAMETER}:(.+)", re.IGNORECASE).fullmatch
_INCLUDED: Final = re.compile(rf"([A-Za-z]+):{_PARAMETER}(?::([A-Za-z]+))?").fullmatch


def is_limited_to_types(parameters: str, types: frozenset[str]) -> bool:
    """Return whether raw parameters of a search of one of `types` concern `types` only.

    Chains, reverse chains, inclusions and sorting concern every type that they pass through, which
    must be named. Never raises.
    """
    if _has_too_many(parameters):
        return False
    for name, value in _pairs(parameters):
        base, _, modifier = name.partition(":")
        base = base.lower()
        if base in ("_include", "_revinclude"):
            fits = modifier.lower() in ("", "iterate", "recurse") and _inclusion_stays_within(
                base, value, types
            )
        elif base == "_sort":
            fits = modifier.lower() in ("", "asc", "desc") and _sort_stays_within(value, types)
        else:
            fits = _name_stays_within(name, types)
        if not fits or value is None:
            return False
    return True


def overrides_request(parameters: str) -> bool:
    """Return whether raw parameters turn the request into another one, or are too many to check."""
    if _has_too_many(parameters):
        return True
    names = (name.partition(":")[0].strip().lower() for name, _ in _pairs(parameters))
    return not _DISGUISES.isdisjoint(names)


def _has_too_many(parameters: str) -> bool:
    return parameters.count("&") + parameters.count(";") >= _MAX_PAIRS


def _pairs(parameters: str) -> Iterator[tuple[str, str | None]]:
    """Yield decoded names with raw values; the value is None where there is no "="."""
    for pair in _SEPARATOR.split(parameters):
        if pair:
            name, equals, value = pair.partition("=")
            yield unquote_plus(name), value if equals else None


def _name_stays_within(name: str, types: frozenset[str]) -> bool:
    """Return whether the name of a parameter, with its chain, leads through `types` only."""
    while len(name) <= _MAX_NAME_LENGTH:
        reverse = _REVERSE(name)
        if reverse is not None:
            target, rest = reverse.groups()
        else:
            step = _CHAIN_STEP(name)
            if step is None:
                return _is_harmless(name)
            parameter, modifier, rest = step.groups()
            if rest is None:
                return modifier is None or modifier in _MODIFIERS or modifier in RESOURCE_TYPES
            target = modifier or _TARGETS.get(parameter)
        if target not in types:
            return False
        name = rest
    return False


def _is_harmless(name: str) -> bool:
    match = _COMMON(name)
    if match is None or match[1].lower() not in _HARMLESS:
        return False
    return match[2] is None or match[2] in _MODIFIERS


def _inclusion_stays_within(base: str, value: str | None, types: frozenset[str]) -> bool:
    """Return whether an inclusion adds resources of `types` only."""
    match = _INCLUDED(_decoded(value))
    if match is None or match[1] not in types:
        return False
    target = match[2]
    # `_revinclude` adds resources of the type `match[1]`; `_include` adds any that these refer to.
    return target in types if target is not None else base == "_revinclude"


def _sort_stays_within(value: str | None, types: frozenset[str]) -> bool:
    keys = _decoded(value).split(",")
    return all(_name_stays_within(key.strip().removeprefix("-"), types) for key in keys)


def _decoded(value: str | None) -> str:
    """Return the decoded value, "" where it is missing or too long to be one."""
    return unquote_plus(value) if value is not None and len(value) <= _MAX_VALUE_LENGTH else ""


# Parameters that do not select resources. A server need not repeat them in `self`, and no
# CapabilityStatement has to list them. All others are checked, misspelled ones as well.
_NOT_SELECTING: Final = frozenset(
    (
        # Search result parameters (FHIR R5 search.html, table "Search Result Parameters").
        *"_contained _containedType _count _elements _graph _include _maxresults".split(),
        *"_revinclude _score _sort _summary _total".split(),
        # Parameters of every interaction (FHIR R5 http.html, "General parameters").
        *"_format _pretty".split(),
        # FHIR leaves paging to servers: these are the names in use.
        *"_page _offset _cursor _skip _page_token _pageId page ct".split(),
        *"_getpages _getpagesoffset _bundletype".split(),
    )
)


@dataclass(slots=True)
class SearchSupport:
    """What is known of searches of one type before the response.

    `declared`: the search parameters that the CapabilityStatement lists, None while that is not
    known; `unfiltered`: those that are known to filter nothing, whatever the platform reports.
    """

    declared: Collection[str] | None = None
    unfiltered: Collection[str] = ()

    def is_unusable(self, name: str) -> bool:
        """Return whether a parameter, with its modifier or as a chain, cannot have been used."""
        base = name.partition(":")[0]
        first = base.partition(".")[0]
        if self.unfiltered and not {name, base, first}.isdisjoint(self.unfiltered):
            return True
        # Parameters with an underscore belong to all types; statements often omit them.
        return self.declared is not None and name[:1] != "_" and first not in self.declared


# One `link` entry of a Bundle, its members in any order. The only objects in such an entry are
# extensions; an entry with one may not match, and the search continues after it.
_LINK: Final = re.compile(rb"\{[^{}]*?\"relation\"\s*:\s*\"self\"[^{}]*+\}")
_SELF: Final = b'"self"'
_URL: Final = re.compile(rb"\"url\"\s*:\s*(\"(?>(?:[^\"\\]++|\\.)*)\")")
# The spelling of nearly all servers; the URL holds no escape and nothing like another end of it.
_USUAL_LINK: Final = re.compile(rb"(?<=\{\"relation\":)\"self\",\"url\":\"([ !#-\[\]-z|~]*+)\"\}")
# URL parsers remove line breaks and tabs (WHATWG URL, section 4.4).
_DROPPED: Final = dict.fromkeys(map(ord, "\t\r\n"))
_XML_LINK: Final = re.compile(
    rb"<link\b[^>]*>\s*<relation\s+value=\"self\"\s*/>\s*<url\s+value=\"([^\"]*)\""
)


def filtering_names(query: str) -> tuple[str, ...]:
    """Return the names in a raw query or form that select resources.

    All parameters after the first `MAX_PARAMETERS` become one name, "?", which no server declares.
    """
    names = dict.fromkeys(_names(query))
    if query.count("&") >= MAX_PARAMETERS:
        names["?"] = None
    return tuple(name for name in names if name.partition(":")[0] not in _NOT_SELECTING)


def ignored_parameters(
    query: str,
    names: tuple[str, ...],
    body: bytes,
    support: SearchSupport,
    *,
    xml: bool = False,
) -> tuple[str, ...]:
    """Return those of `names`, the result of `filtering_names(query)`, that the platform ignored.

    `query` is the raw query or form, `body` the beginning of the searchset. Without a `self` link
    in `body` only its `outcome` entries and `support` can show that.
    """
    url = _self_link(body, xml=xml)
    used_query = query if url is None else _query(url)
    # Nearly all servers repeat the query octet for octet.
    missing = () if used_query.startswith(query) else _missing_names(query, used_query)
    found = _rejected_parameters(body, names, xml=xml)
    return tuple(
        name for name in names if name in missing or name in found or support.is_unusable(name)
    )


def _missing_names(query: str, used_query: str) -> Collection[str]:
    """Return the names that occur more often in `query` than in `used_query`.

    A server may repeat a parameter that it used without the modifier.
    """
    sent_counts, used_counts = (
        Counter(_names(query)),
        Counter(_names(used_query, _MAX_USED_PARAMETERS)),
    )
    missing = set()
    for name, count in sent_counts.items():
        base = name.partition(":")[0]
        without_modifier = 0 if base == name else max(0, used_counts[base] - sent_counts[base])
        if used_counts[name] + without_modifier < count:
            missing.add(name)
    return missing


def self_parameters(body: bytes, *, xml: bool = False) -> frozenset[str] | None:
    """Return the names in the query of the first `self` link; None when there is no such link."""
    url = _self_link(body, xml=xml)
    return None if url is None else frozenset(_names(_query(url), _MAX_USED_PARAMETERS))


def _self_link(body: bytes, *, xml: bool) -> str | None:
    return _xml_self(body) if xml else _json_self(plainly_spelled(body))


def _query(url: str) -> str:
    """Return the query as `urlsplit` would; the part before it is not checked."""
    plain = url if url.isprintable() else url.translate(_DROPPED)
    return plain.partition("#")[0].partition("?")[2]


def _json_self(body: bytes) -> str | None:
    at = body.find(_SELF)
    if at < 0:
        return None
    if (usual := _USUAL_LINK.match(body, at)) is not None:
        return str(usual[1], "ascii")
    link = _json_self_link(body, at)
    url = None if link is None else _URL.search(link[0])
    if url is None:
        return None
    try:
        return str(orjson.loads(url[1]))
    except orjson.JSONDecodeError:
        return None


def _json_self_link(body: bytes, at: int) -> re.Match[bytes] | None:
    """Return the first match of `_LINK`; `at` is the first position of `_SELF`.

    Matching only around that word is several times faster than a search in the whole body.
    """
    tried, seen = -1, 0
    while at >= 0:
        begin = body.rfind(b"{", seen, at)
        if begin > tried:
            tried = begin
            if (link := _LINK.match(body, begin)) is not None:
                return link
        seen = at + len(_SELF)
        at = body.find(_SELF, seen)
    return None


def _xml_self(body: bytes) -> str | None:
    link = _XML_LINK.search(body)
    return html.unescape(link[1].decode("utf-8", "replace")) if link is not None else None


# The `self` link may hold more parameters than the request.
_MAX_USED_PARAMETERS: Final = 4 * MAX_PARAMETERS


def _names(query: str, max_parameters: int = MAX_PARAMETERS) -> list[str]:
    found = []
    for part in query.split("&", max_parameters)[:max_parameters]:
        name, _, value = part.partition("=")
        if value:
            is_encoded = len(name) <= MAX_NAME_LENGTH and ("%" in name or "+" in name)
            found.append(unquote_plus(name) if is_encoded else name)
    return found
