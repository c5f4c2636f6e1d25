"""Max-Forwards on OPTIONS: how many gateways a request may still pass (RFC 9110 section 7.6.2).

TRACE, the other method that has it, is refused.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.http.client.framing import Framing, ResponseHead
from gateway.http.client.response import UpstreamResponse
from gateway.http.client.response_header import ResponseFields
from gateway.http.server.validation import METHODS

# More hops than this are as good as no limit; a longer number is left as it is.
_FIELD: Final = re.compile(rb"(max-forwards: )([0-9]{1,9})\r\n", re.IGNORECASE)


def decrement_max_forwards(method: str, field_lines: list[bytes]) -> tuple[list[bytes], bool]:
    """The fields with one hop less, and whether the request may go on."""
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
    """What the gateway says as the last recipient of an OPTIONS."""
    allow = ", ".join(sorted(METHODS)).encode("ascii")
    return UpstreamResponse(
        ResponseHead(204, ResponseFields.from_pairs([(b"Allow", allow)]), Framing.NONE, None)
    )
