"""Recognises URLs of the platform and of the gateway, and maps one to the other.

URLs are compared by RFC 3986, section 6: http and https are equivalent in FHIR, hosts are
case-insensitive, a scheme's default port may be left out, and a base covers only URLs that continue
at the border of a path segment. `HostFinder` finds in bytes where such a URL may stand. Nothing
here reads bodies of resources or headers; see `gateway.fhir.links.rewriting`.

In a query string or form, a value is replaced when it, or one of its comma-separated parts, is an
absolute URL under the base, percent-encoded or not; all else stays unchanged. A part with `|` is a
token or a versioned canonical: an identifier, no link. The values of `_filter` and `criteria` are
searches themselves, and those of `$graphql` a document with arguments: there a part ends at a
quote, blank or bracket as well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from gateway.fhir.links.link_elements import ContentForm
from gateway.field_values import DEFAULT_PORTS

# User information does not match: `https://platform@evil/` names the host `evil`.
_AUTHORITY: Final = re.compile(
    r"(https?)://(\[[0-9a-f:.]+\]|[a-z0-9\-._~!$&'()*+,;=%]+)(?::([0-9]{0,5}))?(?=[/?#]|\Z)",
    re.IGNORECASE | re.ASCII,
)
# A path without dot segments, backslashes and blanks, by which some parsers leave the base.
_SAFE_PATH: Final = re.compile(
    r"(?>(?:[^?#\\\x00-\x20\x7f/]++|/(?!(?:\.|%2e){1,2}(?:[/?#]|\Z)))*)(?=[?#]|\Z)", re.IGNORECASE
)
# Such a path without a dot, which is found faster: that of nearly all URLs.
_PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9\-_/$]*+(?=[?#]|\Z)")
_BASE_TEXT: Final = re.compile(r"[A-Za-z0-9\-._~:/\[\]%!$'()*+,;=@]+")
_ABSOLUTE: Final = re.compile(r"https?://[^\s\"'<>]+", re.IGNORECASE)
_BEGINNING_BYTES: Final = 4096  # hold the first URL of most bodies
END: Final = (1 << 62) - 1
"""Greater than every position."""

# Bytes: "https%3A%2F%2F" takes fewer, even in character references with leading zeros.
_MAX_SCHEME_BYTES: Final = 160


@dataclass(frozen=True, slots=True)
class LinkBase:
    """A base URL in its components; `port` is None where it is the scheme's default."""

    text: str
    host: str
    port: int | None
    path: str

    @property
    def path_at(self) -> int:
        """The index in `text` at which the path begins."""
        return len(self.text) - len(self.path)


def parse_base(url: str) -> LinkBase:
    """Parse a base URL. Raises ValueError unless it is plain http(s) without a query."""
    text = url.rstrip("/")
    match = _AUTHORITY.match(text)
    if match is None or not _BASE_TEXT.fullmatch(text) or not _SAFE_PATH.match(text, match.end()):
        raise ValueError("not an absolute http or https base URL")
    host, port = _origin(match)
    return LinkBase(text, host, port, text[match.end() :])


# Not used for bases of the gateway: those are made of values that callers send.
_platform_base: Final = lru_cache(maxsize=64)(parse_base)


def _origin(match: re.Match[str]) -> tuple[str, int | None]:
    scheme, host, port = match.groups()
    number = int(port) if port else None
    # `http://host:443` may be another service than `https://host`: only a scheme's own default port
    # may be left out. Another name can be listed in `rewrite.aliases`.
    if number == DEFAULT_PORTS[scheme.lower()]:
        number = None
    return host.lower(), number


def _covers(path: str, url: str, start: int) -> bool:
    """Return whether `url`, whose path begins at `start`, stays under the base path `path`."""
    end = start + len(path)
    border = url[end : end + 1]
    if not url.startswith(path, start) or (border and border not in "/?#"):
        return False
    return (_PLAIN_PATH.match(url, start) or _SAFE_PATH.match(url, start)) is not None


class BaseReplacement:
    """Replaces any of several bases at the start of a URL by another one.

    `is_request`: the text goes to the platform; otherwise it goes to the caller. `holds_colon`: a
    host has a colon. `plain` has the first base and its replacement as bytes, and the same in
    each escape of slashes. `is_unambiguous`: the replacement holds none of the hosts.
    """

    __slots__ = (
        "holds_colon",
        "hosts",
        "is_request",
        "is_unambiguous",
        "plain",
        "sources",
        "target",
    )

    def __init__(
        self, sources: tuple[LinkBase, ...], target: LinkBase, *, is_request: bool
    ) -> None:
        # The longest path first: an alias without a path must not shadow the base with one.
        self.sources = tuple(sorted(sources, key=lambda base: -len(base.path)))
        self.target = target
        self.is_request = is_request
        self.hosts = tuple(sorted({base.host.encode() for base in sources}))
        self.plain = [
            (
                self.sources[0].text.replace("/", slash).encode(),
                target.text.replace("/", slash).encode(),
            )
            for slash in ("/", "\\/", "\\u002f", "\\u002F")
        ]
        self.is_unambiguous = not any(host in target.text.lower().encode() for host in self.hosts)
        self.holds_colon = any(b":" in host for host in self.hosts)

    def prefix_length(self, url: str) -> int | None:
        """Return how many characters of `url` are one of the bases; None when it is under none."""
        for base in self.sources:  # the spelling of nearly all URLs
            if url.startswith(base.text) and _covers(base.path, url, base.path_at):
                return len(base.text)
        match = _AUTHORITY.match(url)
        if match is None:
            return None
        host, port = _origin(match)
        start = match.end()
        for base in self.sources:
            if (base.host, base.port) == (host, port) and _covers(base.path, url, start):
                return start + len(base.path)
        return None

    def translate(self, url: str) -> str | None:
        """Return the URL under the other base, the rest unchanged; None when it is under none."""
        length = self.prefix_length(url)
        return None if length is None else self.target.text + url[length:]

    def replace_in(self, text: str, form: ContentForm) -> str:
        """Return text of a form other than a patch with its absolute URLs under the other base."""
        if form is ContentForm.URL:
            return replace_in_url(text, self)
        return (replace_in_query if form is ContentForm.QUERY else replace_in_text)(text, self)

    def occurs_in(self, text: str) -> bool:
        """Return whether a URL under one of the bases stands anywhere in `text`."""
        return any(self.prefix_length(m.group()) is not None for m in _ABSOLUTE.finditer(text))


class LinkMap:
    """Maps absolute platform URLs to gateway URLs and back.

    `platform` and `gateway` are base URLs, with or without a path; `gateway` is the base as the
    caller knows it. `aliases` are further base URLs of the platform. Raises ValueError when one of
    them is no http(s) base URL.
    """

    __slots__ = ("gateway", "platform", "requests", "responses")

    def __init__(self, platform: str, gateway: str, aliases: tuple[str, ...] = ()) -> None:
        self.platform = _platform_base(platform)
        self.gateway = parse_base(gateway)
        sources = (self.platform, *map(_platform_base, aliases))
        self.responses = BaseReplacement(sources, self.gateway, is_request=False)
        self.requests = BaseReplacement((self.gateway,), self.platform, is_request=True)

    def to_gateway(self, url: str) -> str | None:
        """Return the gateway URL for an absolute platform URL; None where it stays unchanged."""
        return self.responses.translate(url)

    def suffix(self, url: str) -> str | None:
        """Return what follows the platform's base in an absolute or root-relative URL, or None."""
        length = self.responses.prefix_length(url)
        if length is None and url.startswith("/") and _covers(self.platform.path, url, 0):
            length = len(self.platform.path)
        return None if length is None else url[length:]

    def to_platform(self, url: str) -> str | None:
        """Return the platform URL for an absolute gateway URL; None where it stays unchanged."""
        return self.requests.translate(url)

    def path_to_gateway(self, path: str) -> str | None:
        """Return the gateway path for a platform path such as `/fhir/Patient/1`, or None."""
        if not path.startswith("/") or not _covers(self.platform.path, path, 0):
            return None
        return self.gateway.path + path[len(self.platform.path) :]


_MAX_FIELD_BYTES: Final = 64 * 1024  # a longer form field passes unchanged
_UNIT: Final = re.compile(r"%[0-9A-Fa-f]{2}|.", re.DOTALL)
_COMMA: Final = re.compile(r"(,|%2[Cc])")
# What stands before a URL in text: blanks and `"(,=?&+`.
_BORDER: Final = re.compile(r"""([\s"(,=?&+]|%(?:0[9AaDd]|2[0268BbCc]|3[DdFf]))""")
_BACKSLASH: Final = r"(?:\\|%5[Cc])"
_TEXT_UNIT: Final = re.compile(
    rf"{_BACKSLASH}(?:u[0-9A-Fa-f]{{4}}|%2[Ff]|.)|%[0-9A-Fa-f]{{2}}|.", re.DOTALL
)
_ESCAPED_SLASH: Final = re.compile(r"\\(?:/|u002[Ff])")
_TEXTS: Final = frozenset({"_filter", "criteria"})
_GRAPHQL_TEXTS: Final = _TEXTS | {"query", "variables"}
_SCHEME: Final = re.compile(
    rb"(?:h|%[46]8)(?:t|%[57]4){2}(?:p|%[57]0)(?:s|%[57]3)?(?::|%3a)(?:/|%2f){2}"
)
_ESCAPE: Final = re.compile(rb"%")
# An escape other than that of a colon, slash, bar or space, of which only a colon is in some hosts.
_HIDING: Final = re.compile(r"%(?!3[Aa]|2[Ff]|7[Cc]|20)")
_ENCODED: Final = {
    ":": re.compile(r"%3[Aa]"),
    "/": re.compile(rf"{_BACKSLASH}(?:/|u002[Ff]|%2[Ff])|%2[Ff]"),
}


def replace_in_query(raw: str, swap: BaseReplacement, path: str = "") -> str:
    """Return the query string with its absolute URLs under the other base.

    `path` stands before the query: that of `$graphql` gives its parameters another meaning.
    """
    if not _may_hold_host(raw, swap):
        return raw
    texts = _GRAPHQL_TEXTS if unquote(path).endswith("$graphql") else _TEXTS
    return "&".join(_replace_in_pair(pair, swap, texts) for pair in raw.split("&"))


def replace_in_text(raw: str, swap: BaseReplacement) -> str:
    """Return text that carries a search or arguments with its absolute URLs under the other base.

    It may be percent-encoded, and slashes may be escaped as in a string of GraphQL or JSON.
    """
    if not _may_hold_host(raw, swap):
        return raw
    return "".join(_replace_in_part(part, swap, _TEXT_UNIT) for part in _BORDER.split(raw))


def _may_hold_host(raw: str, swap: BaseReplacement) -> bool:
    is_encoded = swap.holds_colon or _HIDING.search(raw) is not None
    plain = (unquote(raw, encoding="latin-1") if is_encoded else raw).lower()
    return any(host.decode() in plain for host in swap.hosts)


def replace_in_url(raw: str, swap: BaseReplacement) -> str:
    """Return the URL, absolute or relative, with its base and those in its query replaced."""
    head, mark, query = raw.partition("?")
    return (swap.translate(head) or head) + mark + replace_in_query(query, swap, head)


def _replace_in_pair(pair: str, swap: BaseReplacement, texts: frozenset[str]) -> str:
    name, equals, value = pair.partition("=")
    if unquote(name) in texts:
        return name + equals + replace_in_text(value, swap)
    parts = _COMMA.split(value)
    return name + equals + "".join(_replace_in_part(part, swap, _UNIT) for part in parts)


def _replace_in_part(raw: str, swap: BaseReplacement, unit: re.Pattern[str]) -> str:
    text = unquote(raw, encoding="latin-1")
    if unit is _TEXT_UNIT:
        text = _ESCAPED_SLASH.sub("/", text)
    length = swap.prefix_length(text)
    if length is None or "|" in text:
        return raw
    cut = raw_length(raw, length, unit, "%" if unit is _UNIT else "")
    target = swap.target.text
    for char, encoded in _ENCODED.items():
        match = encoded.search(raw, 0, cut)
        if match is not None:
            target = target.replace(char, match.group())
    return target + raw[cut:]


class HostFinder:
    """Finds the positions of hosts after a slash, as in an absolute URL.

    Case is ignored, and the slash may be percent-encoded. `escape` begins every escape of the
    format. `hiding` matches those that may spell a part of a host: where there is one, `scheme`
    finds URLs in any spelling. The positions are candidates only and have to be checked.

    A slash has to stand before a host, because a caller chooses its `Host`: with a name of one
    letter every byte would have to be examined.

    `data` is a further text to find, since base64 hides the URLs of a patch; `spelled_data` matches
    it in any spelling.
    """

    __slots__ = (
        "_data",
        "_escape",
        "_hiding",
        "_hosts",
        "_overlap",
        "_reach",
        "_scheme",
        "_spelled_data",
    )

    def __init__(
        self,
        hosts: tuple[bytes, ...],
        escape: bytes,
        hiding: re.Pattern[bytes],
        scheme: re.Pattern[bytes],
        data: bytes = b"",
        spelled_data: re.Pattern[bytes] | None = None,
    ) -> None:
        self._hosts = hosts
        self._data = data
        self._spelled_data = spelled_data
        self._escape = escape
        self._hiding = hiding
        self._scheme = scheme
        self._reach = max(map(len, hosts)) + len(escape)
        self._overlap = self._reach + _MAX_SCHEME_BYTES

    def has_obscuring_escape(self, data: bytes) -> bool:
        """Return whether an escape in `data` may spell a character of a host."""
        return self.has_escape(data) and self._hiding.search(data) is not None

    def has_escape(self, data: bytes) -> bool:
        """Return whether `data` holds an escape that begins like all of the format."""
        # One byte is found faster than several, and most data holds no escape at all.
        return data.find(self._escape[:1]) >= 0 and data.find(self._escape) >= 0

    def positions(self, data: bytes, known: int = 0, limit: int = END) -> list[int]:
        """Return all positions in order, then END; the first `known` bytes were searched before.

        At most `limit` of each spelling of a host are needed.
        """
        start = max(0, known - self._overlap)
        tail = data[start:] if start else data
        has_escape = self.has_escape(tail)
        if has_escape and self._hiding.search(tail) is not None:
            found = self._escaped(tail.lower())
        else:
            found = self.unescaped_positions(tail, limit, has_escape=has_escape)
        return [*(start + at for at in found), END]

    def data_positions(self, text: bytes, known: int = 0) -> list[int]:
        """Return the positions of what may begin a patch, in order; `known` as for `positions`.

        A few of those among the known bytes may be returned again.
        """
        if not self._data:
            return []
        start = max(0, known - self._overlap)
        if self._spelled_data is not None and self.has_obscuring_escape(text):
            return [match.start() for match in self._spelled_data.finditer(text, start)]
        found: list[int] = []
        _add_positions(found, text, self._data, start, END)
        return found

    def unescaped_positions(self, data: bytes, limit: int = END, *, has_escape: bool) -> list[int]:
        """Return the same without END; for data without escapes that may hide any.

        `has_escape` is what the method of that name returns for `data`.
        """
        if limit == 1:
            # What follows the first host in the usual spelling need not be converted to lower case.
            for host in self._hosts:
                at = data.find(b"/" + host, 0, _BEGINNING_BYTES)
                data = data[: at + 1 + len(host)] if at >= 0 else data
        is_encoded = has_escape or b"%" in data
        found: list[int] = []
        # A search for a single byte runs at the speed of memory, and base64 holds none of these.
        if is_encoded or b":" in data:
            lower = data.lower()
            for host in self._hosts:
                at = lower.find(host)
                if at >= 0:
                    _add_positions(found, lower, b"/" + host, max(0, at - 1), limit)
                    if is_encoded:
                        _add_positions(found, lower, b"2f" + host, max(0, at - 2), limit)
            found.sort()
        return found

    def _escaped(self, lower: bytes) -> list[int]:
        """Return the positions of URLs with such a host, or with an escape where it would be."""
        escape, hosts, reach = self._escape, self._hosts, self._reach
        return [
            match.start()
            for match in self._scheme.finditer(lower)
            if lower.startswith(hosts, match.end())
            or lower.find(escape, match.end(), match.end() + reach) >= 0
        ]


def _add_positions(found: list[int], text: bytes, wanted: bytes, start: int, limit: int) -> None:
    at = text.find(wanted, start)
    while at >= 0 and limit > 0:
        limit -= 1
        found.append(at)
        at = text.find(wanted, at + 1)


def raw_length(raw: str, length: int, unit: re.Pattern[str], escape: str) -> int:
    """Return how many characters of `raw` encode the first `length` characters of its value.

    `unit` matches the encoding of one character; `escape` begins encodings of several characters.
    """
    if raw.find(escape, 0, length) < 0:
        return length
    at = 0
    for _ in range(length):
        match = unit.match(raw, at)
        if match is None:
            break
        at = match.end()
    return at


class FormRewriter:
    """Does the same for the body of a `_search` form, field by field as it streams by.

    Consecutive fields without a URL of the known hosts pass together. `separator`, `form` and
    `host_finder` are others for a document of GraphQL, in which URLs stand between quotes.
    """

    __slots__ = (
        "_buffer",
        "_form",
        "_host_finder",
        "_passing",
        "_separator",
        "_swap",
        "rewritten",
        "unrewritten",
    )

    def __init__(
        self,
        swap: BaseReplacement,
        *,
        separator: bytes = b"&",
        form: ContentForm = ContentForm.QUERY,
        host_finder: HostFinder | None = None,
    ) -> None:
        self._swap = swap
        self._separator = separator
        self._form = form
        self._host_finder = host_finder or HostFinder(swap.hosts, b"%", _ESCAPE, _SCHEME)
        self._buffer = b""  # an incomplete field
        self._passing = False  # in a field longer than `_MAX_FIELD_BYTES`
        self.rewritten = 0
        self.unrewritten = 0

    def feed(self, chunk: bytes) -> bytes:
        """Take the next chunk of the body; return the output that can be sent."""
        start = 0
        if self._passing:
            start = chunk.find(self._separator) + 1
            if not start:
                return chunk
        self._passing = False
        data = self._buffer + chunk[start:]
        cut = data.rfind(self._separator) + 1
        ready, self._buffer = chunk[:start] + self._fields(data[:cut]), data[cut:]
        if len(self._buffer) > _MAX_FIELD_BYTES:
            self._passing = True
            ready, self._buffer = ready + self._buffer, b""
        return ready

    def finish(self) -> bytes:
        """End the body; return the rest of the output."""
        rest, self._buffer = self._fields(self._buffer), b""
        return rest

    def _fields(self, data: bytes) -> bytes:
        """Return complete fields, of which only those with a candidate are read."""
        ready: list[bytes] = []
        done = 0
        for candidate in self._host_finder.positions(data)[:-1]:
            if candidate < done:
                continue  # in a field that was just read
            start = data.rfind(self._separator, done, candidate) + 1 or done
            end = data.find(self._separator, candidate)
            end = len(data) if end < 0 else end
            ready += (data[done:start], self._field(data[start:end]))
            done = end
        ready.append(data[done:])
        return b"".join(ready)

    def _field(self, field: bytes) -> bytes:
        if len(field) > _MAX_FIELD_BYTES:
            return field
        text = field.decode("latin-1")
        swapped = self._swap.replace_in(text, self._form)
        self.rewritten += swapped != text
        return swapped.encode("latin-1")
