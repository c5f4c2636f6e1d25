"""Max-Forwards on OPTIONS: the remaining number of forwards (RFC 9110 section 7.6.2).

TRACE, the other method with this field, is rejected.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.http.client.framing import Framing, ResponseHead
from gateway.http.client.response import UpstreamResponse
from gateway.http.client.response_header import ResponseFields
from gateway.http.server.validation import METHODS

# A larger number is equivalent to no limit; a value with more digits is left unchanged.
_FIELD: Final = re.compile(rb"(max-forwards: )([0-9]{1,9})\r\n", re.IGNORECASE)


def decrement_max_forwards(method: str, field_lines: list[bytes]) -> tuple[list[bytes], bool]:
    """Return the field lines with Max-Forwards decremented, and whether to forward the request."""
    if method != "OPTIONS":
        return field_lines, True
    counted = []
    goes_on = True
    for line in field_lines:
        field = _FIELD.fullmatch(line)
        if field is not None:
            hops = int(field[2])
            goes_on = goes_on and hops > 0
            line = b"%s%d\r\n" % (field[1], max(0, hops - 1))
        counted.append(line)
    return counted, goes_on


def final_recipient_response() -> UpstreamResponse:
    """Return the response of the gateway as the final recipient of an OPTIONS request."""
    allow = ", ".join(sorted(METHODS)).encode("ascii")
    return UpstreamResponse(
        ResponseHead(204, ResponseFields.from_pairs([(b"Allow", allow)]), Framing.NONE, None)
    )
