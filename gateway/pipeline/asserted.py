"""Who used the old system, and what for: as that system says, noted and never forwarded."""

from __future__ import annotations

from typing import Final

from gateway.fhir.purpose_of_use import PURPOSES
from gateway.http.headers import RawHeaders, normalized_field_name
from gateway.pipeline.callers import Caller

# Of a name; longer ones are cut.
_MAX_VALUE_LENGTH: Final = 256


class AssertedIdentity:
    """What a caller's fields say: `user`, and `purpose` where it is one of the national list."""

    __slots__ = ("_names", "purpose", "user")

    def __init__(self, caller: Caller, raw: RawHeaders) -> None:
        self.user = _text(raw, caller.user_header)
        purpose = (_text(raw, caller.purpose_header) or "").upper()
        self.purpose = purpose if purpose in PURPOSES else None
        names = (caller.user_header, caller.purpose_header)
        self._names = frozenset(normalized_field_name(name) for name in names if name is not None)

    def strip_fields(self, field_lines: list[bytes]) -> list[bytes]:
        """The lines but for these fields, in every spelling that a server may take for theirs."""
        return [
            line
            for line in field_lines
            if normalized_field_name(line.partition(b":")[0]) not in self._names
        ]


def _text(raw: RawHeaders, name: bytes | None) -> str | None:
    """A field's values as one text of printable characters, None where they hold nothing."""
    values = [value for key, value in raw if key.lower() == name]
    text = b", ".join(values).decode("utf-8", "replace")
    shown = "".join(each if each.isprintable() else "\ufffd" for each in text[:_MAX_VALUE_LENGTH])
    return shown.strip() or None
