"""The user and the purpose of use that a caller asserts: recorded and never forwarded."""

from __future__ import annotations

from typing import Final

from gateway.fhir.purpose_of_use import PURPOSES
from gateway.http.headers import RawHeaders, normalized_field_name
from gateway.pipeline.callers import Caller

# Characters of a value; longer values are cut.
_MAX_VALUE_LENGTH: Final = 256


class AssertedIdentity:
    """What a caller's fields assert: `user`, and `purpose` if it is in the national value set."""

    __slots__ = ("_names", "purpose", "user")

    def __init__(self, caller: Caller, raw: RawHeaders) -> None:
        self.user = _text(raw, caller.user_header)
        purpose = (_text(raw, caller.purpose_header) or "").upper()
        self.purpose = purpose if purpose in PURPOSES else None
        names = (caller.user_header, caller.purpose_header)
        self._names = frozenset(normalized_field_name(name) for name in names if name is not None)

    def strip_fields(self, field_lines: list[bytes]) -> list[bytes]:
        """Return the field lines without the asserting fields.

        All spellings that a server may treat as the same field name are removed.
        """
        return [
            line
            for line in field_lines
            if normalized_field_name(line.partition(b":")[0]) not in self._names
        ]


def _text(raw: RawHeaders, name: bytes | None) -> str | None:
    """Return all values of a field as one text of printable characters, None if it is empty."""
    values = [value for key, value in raw if key.lower() == name]
    text = b", ".join(values).decode("utf-8", "replace")
    printable = "".join(
        character if character.isprintable() else "\ufffd" for character in text[:_MAX_VALUE_LENGTH]
    )
    return printable.strip() or None
