"""Finds Bundle.type in the first bytes of a body, without parsing the rest.

Incremental on purpose: a transaction may be large, and its type nearly always stands in front.
"""

from __future__ import annotations

import json
import re
from typing import Final

# Only reads names and attributes; declarations of a document type, and with them all entities,
# end the parsing before they are looked at.
from xml.parsers import expat


def bundle_type(prefix: bytes, content_type: str) -> str | None:
    """The value of `type` in the outermost JSON object or XML element; None if it is not there.

    `content_type` decides between the two; where it names neither, the first byte does.
    """
    media_type = content_type.lower()
    if "xml" in media_type or ("json" not in media_type and prefix.lstrip()[:1] == b"<"):
        return _in_xml(prefix)
    return _in_json(prefix)


# Strings (with the colon that makes one a key) and brackets. A string that the prefix cuts off
# reaches to its end. Possessive, so that the time is linear in the length.
_TOKEN: Final = re.compile(
    rb'("[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z))(\s*+:)?|[{}\[\]]',
    re.DOTALL,
)
_OPENING: Final = frozenset({b"{", b"["})


def _in_json(prefix: bytes) -> str | None:
    depth = 0
    wanted = False
    for token in _TOKEN.finditer(prefix):
        text, colon = token.groups()
        if text is None:
            bracket = token.group()
            if wanted or (depth == 0 and bracket != b"{"):
                return None
            depth += 1 if bracket in _OPENING else -1
            if depth == 0:
                return None
        elif wanted:
            return None if colon else _unquoted(text)
        elif depth == 1 and colon:
            wanted = _unquoted(text) == "type"
    return None


def _unquoted(string: bytes) -> str | None:
    try:
        value = json.loads(string)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


class _FoundError(Exception):
    """Leaves the XML parser early; carries what was found."""

    def __init__(self, value: str | None) -> None:
        super().__init__()
        self.value = value


def _in_xml(prefix: bytes) -> str | None:
    depth = 0

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth == 2 and name.rpartition(" ")[2] == "type":
            raise _FoundError(attributes.get("value"))

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1

    def refuse(*declaration: object) -> None:
        raise _FoundError(None)

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(prefix, False)
    except _FoundError as found:
        return found.value
    except (expat.ExpatError, ValueError, LookupError):
        return None
    return None
