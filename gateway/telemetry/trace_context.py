"""Where a request belongs in a distributed trace: W3C Trace Context, level 2.

https://www.w3.org/TR/trace-context-2/ sections 3.2 (`traceparent`) and 4 (what to do with it).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

# Later versions may have more behind the flags; their first four parts are read as version 00.
_TRACEPARENT: Final = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
SAMPLED: Final = 0x01
# What is known of the flags: sampled, and that the trace's id is random.
_KNOWN: Final = 0x03


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span's place in a trace; ids in lower-case hexadecimal."""

    trace_id: str
    span_id: str
    flags: int

    @property
    def is_sampled(self) -> bool:
        """Whether somebody before us records this trace."""
        return bool(self.flags & SAMPLED)

    def __str__(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"


def parse_traceparent(traceparent: str | None) -> TraceContext | None:
    """What a `traceparent` says; None for none, and for one that is not valid."""
    match = None if traceparent is None else _TRACEPARENT.fullmatch(traceparent)
    if match is None or (match[1] == "00" and match[5] is not None):
        return None
    return TraceContext(match[2], match[3], int(match[4], 16) & _KNOWN)
