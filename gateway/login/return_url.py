"""Checks where a browser may be sent after the sign-in: only to allowed origins.

With an open redirect, an attacker could use the gateway's URL for phishing (RFC 9700 section 4.11).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import quote, unquote

_MAX_LENGTH: Final = 2048
# Browsers remove white space and control characters, and read a backslash as a slash.
_UNCLEAN: Final = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")
_AFTER_PATH: Final = re.compile(r"[?#]")
_AFTER_ORIGIN: Final = ("", "/", "?", "#")
_DECODINGS: Final = 3
# As a target, these paths would start or end a sign-in again, in a loop.
_NEVER: Final = ("/auth/login", "/auth/callback", "/auth/logout")


def return_target(value: str, own_origin: str, origins: Collection[str]) -> str | None:
    """Return the target, percent-encoded for a Location field, or None if it is not allowed.

    Allowed are an absolute path, alone or after `own_origin`, which is that of the gateway, and
    URLs of `origins`.
    """
    if not value or len(value) > _MAX_LENGTH or _UNCLEAN.search(value):
        return None
    if _is_below(value, own_origin):
        value = value.removeprefix(own_origin) or "/"
    if value.startswith("/"):
        allowed = not is_path_unsafe(value)
    else:
        allowed = any(_is_below(value, origin) for origin in origins)
    return quote(value, safe="%/:?#[]@!$&'()*+,;=~-._") if allowed else None


def _is_below(url: str, origin: str) -> bool:
    """Return whether `url` is of `origin`.

    They are compared as text, because parsers disagree about unusual URLs.
    """
    rest = url.removeprefix(origin)
    return rest != url and rest[:1] in _AFTER_ORIGIN


def is_path_unsafe(target: str) -> bool:
    """Return whether any parser could read the path as another host, or `..` as a parent folder.

    The path is also checked after up to three percent-decodings. The paths in `_NEVER` count as
    unsafe.
    """
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
