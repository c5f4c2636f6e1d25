"""The position of a request in a distributed trace: W3C Trace Context, level 2.

https://www.w3.org/TR/trace-context-2/ sections 3.2 (`traceparent`) and 4 (how to process it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Later versions may append data to the flags; their first four parts are parsed as version 00.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
SAMPLED: Final = 0x01
# The flags that are passed on: sampled, and random trace id.
_KNOWN: Final = 0x03


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's position in a trace; ids in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether the sampled flag is set: the caller may have recorded this trace."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(traceparent: str | None) -> TraceContext | None:
    """Return the context of a `traceparent`; None if there is none or it is invalid."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceContext(match[2], match[3], int(match[4], 16) & _KNOWN)
