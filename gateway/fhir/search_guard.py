"""Finds the search parameters that the platform ignored.

A server that does not know a parameter may leave it out and return everything (FHIR R5 search,
section 3.2.1.4 "Handling errors"); the national platform does. The parameters that were used stand
in the Bundle's `self` link, those that can be used in the CapabilityStatement. Some platforms
report parameters as used that filter nothing: `fhir.unfiltered` of the settings lists these.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote_plus

import orjson

from gateway.fhir.interaction import MAX_NAME_LENGTH, MAX_PARAMETERS
from gateway.fhir.links.json_text import plainly_spelled
from gateway.fhir.search_complaints import rejected_parameters

# Parameters that do not select resources. A server need not repeat them in `self`, and no
# CapabilityStatement has to list them. All others are checked, misspelled ones as well.
_NOT_SELECTING: Final = frozenset(
    (
        # Search result parameters (FHIR R5 search.html, table "Search Result Parameters").
        *("_contained", "_containedType", "_count", "_elements", "_graph", "_include"),
        *("_maxresults", "_revinclude", "_score", "_sort", "_summary", "_total"),
        # Parameters of every interaction (FHIR R5 http.html, "General parameters").
        *("_format", "_pretty"),
        # FHIR leaves paging to servers: these are the names in use.
        *("_page", "_offset", "_cursor", "_skip", "_page_token", "_pageId", "page", "ct"),
        *("_getpages", "_getpagesoffset", "_bundletype"),
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
    found = rejected_parameters(body, names, xml=xml)
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
