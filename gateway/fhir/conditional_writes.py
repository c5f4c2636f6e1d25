"""Finds the conditions of a write that the platform evaluates by a search.

A conditional create has its condition in `If-None-Exist`, or `ifNoneExist` in a Bundle; an update,
patch or delete has a query in the place of an id (FHIR R5 http.html, section 3.2.0.9).
"""

from __future__ import annotations

import html
import re
import zlib
from typing import Any, Final
from urllib.parse import unquote

import orjson

from gateway.fhir.interaction import is_type, query_names
from gateway.fhir.json_text import plainly_spelled
from gateway.fhir.vocabulary import RESOURCE_TYPES

# The interaction code, the resource type, and the parameter names to report.
Condition = tuple[str, str, tuple[str, ...]]

_CODES: Final = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_STRING: Final = rb"\"(?>(?:[^\"\\]++|\\.)*)\""
_FLAT: Final = rb"\{(?>(?:[^{}\"]++|" + _STRING + rb")*)\}"
_NESTED: Final = rb"\{(?>(?:[^{}\"]++|" + _STRING + rb"|" + _FLAT + rb")*)\}"
# The only objects in an `entry.request` are extensions.
_JSON: Final = re.compile(
    rb"\"request\"\s*+:\s*+(\{(?>(?:[^{}\"]++|" + _STRING + rb"|" + _NESTED + rb")*)\})", re.DOTALL
)
_XML: Final = re.compile(rb"<request>(.*?)</request>", re.DOTALL)
_XML_MEMBER: Final = re.compile(
    r"<(method|url|ifNoneExist)\s+value\s*=\s*(?:\"([^\"]*)\"|'([^']*)')"
)
# Bytes. A longer request is ignored: its URL would be too long for the platform, too.
_MAX_REQUEST_BYTES: Final = 64 * 1024
_MAX_CONDITIONS: Final = 256
_HALF_ESCAPE: Final = 5  # bytes of an escaped letter without its last byte
# Bytes of a compressed body that are opened in one step, at most beyond the ratio, and the ratio of
# bytes opened to bytes received: more would block the event loop.
_STEP: Final = 64 * 1024
_FREE_BYTES: Final = 1024 * 1024
_MAX_RATIO: Final = 40
# Members of a gzip file (RFC 1952 section 2.2).
_MAX_MEMBERS: Final = 1000
# What stands for the conditions of a Bundle that cannot be read: no platform declares it.
_UNREADABLE: Final[Condition] = ("unreadable", "", ("Content-Encoding",))


def _decompressor() -> zlib._Decompress:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


def condition_of_request(
    code: str, resource: str, query: str, *, if_none_exist: bool
) -> Condition | None:
    """Return the condition of a write outside a Bundle; `query` is raw, the path holds no id."""
    if code == "create":
        return (code, resource, ("If-None-Exist",)) if if_none_exist else None
    if code in ("update", "patch", "delete") and query:
        return code, resource, query_names(query)
    return None


class BundleConditions:
    """Finds the conditions of a Bundle's entries as the body streams by.

    `coding` is that of its Content-Encoding, "" for none. A body that cannot be opened may hold any
    condition.
    """

    def __init__(self, content_type: str, coding: str = "") -> None:
        self._decompressor = _decompressor() if coding else None
        self._received = self._opened = self._members = 0
        self._xml = "xml" in content_type.lower()
        self._rest = b""
        # In the order of the entries, each condition once.
        self._found: dict[Condition, None] = {}

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of the entries read so far, at most 256 different ones."""
        return tuple(self._found)

    def feed(self, data: bytes) -> None:
        """Scan the next chunk."""
        if self._decompressor is None:
            self._scan(data)
            return
        self._received += len(data)
        try:
            while data:
                data = self._open(data)
        except zlib.error:
            self._found[_UNREADABLE] = None

    def _open(self, data: bytes) -> bytes:
        """Open one member of a compressed body; return what follows it. Raises `zlib.error`."""
        opener = self._decompressor
        if opener is None or opener.eof:
            opener = self._decompressor = _decompressor()
            self._members += 1
        plain = opener.decompress(data, _STEP)
        while plain:
            self._opened += len(plain)
            limit = _FREE_BYTES + _MAX_RATIO * self._received
            if self._opened > limit or self._members > _MAX_MEMBERS:
                raise zlib.error("too long")
            self._scan(plain)
            plain = opener.decompress(opener.unconsumed_tail, _STEP)
        return opener.unused_data

    def _scan(self, data: bytes) -> None:
        text = self._rest + data
        pattern, begin = _XML, b"<request>"
        if not self._xml:
            pattern, begin, text = _JSON, b'"request"', plainly_spelled(text)
        done = 0
        for match in pattern.finditer(text):
            self._record_condition(match[1])
            done = match.end()
        # The beginning of an incomplete request, or of its name, is retained for the next chunk.
        open_at = text.find(begin, done)
        keep_from = max(done, len(text) - len(begin) - _HALF_ESCAPE) if open_at < 0 else open_at
        self._rest = text[max(keep_from, len(text) - _MAX_REQUEST_BYTES) :]

    def _record_condition(self, request: bytes) -> None:
        members = _xml_members(request) if self._xml else _json_members(request)
        code = _CODES.get(members.get("method", ""))
        path, _, query = members.get("url", "").partition("?")
        before, _, resource = unquote(path).rstrip("/").rpartition("/")
        if code is None or len(self._found) >= _MAX_CONDITIONS or not is_type(resource):
            return
        owner = before.rpartition("/")[2]
        # `resource` is an id that looks like a type. The end of an absolute base (`/FHIR/`) looks
        # like a type, too, so that an unknown type counts only where nothing precedes it.
        if owner in RESOURCE_TYPES or (owner == before and is_type(owner)):
            return
        has_criteria = "ifNoneExist" in members
        condition = condition_of_request(code, resource, query, if_none_exist=has_criteria)
        if condition is not None:
            names = ("ifNoneExist",) if code == "create" else condition[2]
            self._found[code, resource, names] = None


def _json_members(request: bytes) -> dict[str, str]:
    try:
        parsed: dict[str, Any] = orjson.loads(request)
    except orjson.JSONDecodeError:
        return {}
    return {name: value for name, value in parsed.items() if isinstance(value, str)}


def _xml_members(request: bytes) -> dict[str, str]:
    found = _XML_MEMBER.findall(request.decode("utf-8", "replace"))
    return {name: html.unescape(double or single) for name, double, single in found}
