"""Log lines of requests.

A line never contains a token, a secret or the value of a query parameter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from aiohttp import web


@dataclass(slots=True)
class SandboxEvent:
    """What a handler adds to the log line; `result` replaces the status if it is set."""

    note: str = ""
    result: str = ""


EVENT: Final = web.RequestKey("event", SandboxEvent)


def line(side: str, request: web.Request, result: str, note: str) -> str:
    """Return the log line of a request. It contains only the names of the query parameters."""
    names = "&".join(f"{quote(name)}=…" for name in request.query)
    target = quote(request.rel_url.raw_path, safe="/%$:") + (f"?{names}" if names else "")
    return f"{side:<8}  {request.method} {target} {result}  {note}".rstrip()
