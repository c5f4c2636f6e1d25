"""Where a browser may be sent after the sign-in: never off to somebody else's page.

An open redirect would lend the gateway's name to a forger (RFC 9700 section 4.11).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import quote, unquote

_LONGEST: Final = 2048
# White space and controls are dropped by browsers, and a backslash is read as a slash.
_UNCLEAN: Final = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_AFTER_PATH: Final = re.compile(r"[?#]")
_AFTER_ORIGIN: Final = ("", "/", "?", "#")
_DECODINGS: Final = 3
# Would begin or end a sign-in again, and again.
_NEVER: Final = ("/auth/login", "/auth/callback", "/auth/logout")


def return_target(value: str, own: str, origins: Collection[str]) -> str | None:
    """The target as it may stand in a `Location`, or None for one that is not allowed.

    Allowed are an absolute path, alone or below the gateway's `own` origin, and URLs of `origins`.
    """
    if not value or len(value) > _LONGEST or _UNCLEAN.search(value):
        return None
    if _is_below(value, own):
        value = value.removeprefix(own) or "/"
    if value.startswith("/"):
        allowed = not is_path_unsafe(value)
    else:
        allowed = any(_is_below(value, origin) for origin in origins)
    return quote(value, safe="%/:?#[]@!$&'()*+,;=~-._") if allowed else None


def _is_below(url: str, origin: str) -> bool:
    """Compared as text, so that no two readers can differ about it."""
    rest = url.removeprefix(origin)
    return rest != url and rest[:1] in _AFTER_ORIGIN


def is_path_unsafe(target: str) -> bool:
    """Whether some reader could take the path for another host or leave its folder."""
    path = _AFTER_PATH.split(target, maxsplit=1)[0]
    for _ in range(_DECODINGS):
        if "//" in path or "@" in path or _UNCLEAN.search(path):
            return True
        if any(segment in (".", "..") for segment in path.split("/")):
            return True
        if path.rstrip("/").endswith(_NEVER):
            return True
        path = unquote(path, errors="replace")
    return "//" in path
