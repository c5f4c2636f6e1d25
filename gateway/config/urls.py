"""The URLs and URL paths of the settings.

Every check raises `InvalidValueError`, which never repeats the URL: it may hold a password.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Annotated, Final
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, Field, Strict

from gateway.config.values import InvalidValueError, Unit, is_host, is_loopback_host
from gateway.i18n import Message, any_of
from gateway.secret import Secret

_UNCLEAN: Final = re.compile(r"[\x00-\x20\x7f-\uffff\\\"<>^`{|}]")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)


def _split(value: str, schemes: Collection[str]) -> SplitResult:
    """Return the parts of an absolute URL without user, password, query and fragment."""
    # The hint must not propose http:// where the rule about plaintext would then reject it.
    proposed = [
        scheme for scheme in schemes if scheme != "http" or _allows_plaintext(value, schemes)
    ]
    example = Message("write it as {proposed}://host…", proposed=min(proposed, key=len))
    if _UNCLEAN.search(value):
        raise InvalidValueError(
            Message("holds a character that no URL may hold"),
            Message(
                "percent-encode it; host names in other letters are written in their xn-- form"
            ),
        )
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidValueError(
            Message("is not a URL: host or port cannot be read"), example
        ) from None
    if parts.scheme not in schemes:
        begins = any_of(f"{scheme}://" for scheme in sorted(proposed))
        raise InvalidValueError(Message("must begin with {begins}", begins=begins), example)
    if "@" in parts.netloc:
        raise InvalidValueError(
            Message("must not hold a user or password"), Message("remove everything up to the @")
        )
    if not parts.hostname or not is_host(parts.hostname):
        raise InvalidValueError(Message("names no valid host"), example)
    if "?" in value or "#" in value:
        raise InvalidValueError(
            Message("must not hold a query or fragment"),
            Message("remove everything from the ? or # on"),
        )
    _clean_path(parts.path)
    return parts


def split_server(
    value: str, schemes: Collection[str], unknown: Message, hint: Message
) -> SplitResult:
    """Return the parts of a server's URL, which may have a user and a password.

    Raises `InvalidValueError`, with `unknown` for a scheme that is not in `schemes`.
    """
    scheme, is_url, _ = value.partition("://")
    if not is_url or scheme not in schemes:
        raise InvalidValueError(unknown, hint)
    if _UNCLEAN.search(value):
        raise InvalidValueError(
            Message("holds a character that no URL may hold"), Message("percent-encode it")
        )
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidValueError(
            Message("is not a URL: host or port cannot be read"),
            Message("percent-encode what the password holds of : / ? # [ ] @"),
        ) from None
    if parts.fragment:
        raise InvalidValueError(
            Message("must not hold a fragment"),
            Message("percent-encode a # in the password as %23"),
        )
    return parts


def user_of(parts: SplitResult) -> str | None:
    """Return the user, percent-decoded, None without one."""
    return unquote(parts.username) if parts.username else None


def password_of(parts: SplitResult) -> Secret | None:
    """Return the password, percent-decoded, None without one."""
    return Secret(unquote(parts.password)) if parts.password else None


def _allows_plaintext(value: str, schemes: Collection[str]) -> bool:
    """Return whether http:// may be proposed: for a loopback host, or where https is no choice."""
    try:
        host = urlsplit(value if "://" in value else f"//{value}").hostname
    except ValueError:
        host = None
    return "https" not in schemes or is_loopback_host(host or "")


def _clean_path(path: str) -> None:
    segments = path.split("/")
    if "//" in path or any(segment in (".", "..") for segment in segments):
        raise InvalidValueError(
            Message("has a path with empty, `.` or `..` parts"), Message("write the path out")
        )


def _join(parts: SplitResult, path: str) -> str:
    # Host and scheme are case-insensitive; the path is not, and stays unchanged.
    return f"{parts.scheme}://{parts.netloc.lower()}{path}"


def parse_base_url(value: str) -> str:
    """Parse an http(s) base URL. Return it without trailing slash.

    Raises `InvalidValueError`.
    """
    parts = _split(value, ("http", "https"))
    return _join(parts, parts.path.rstrip("/"))


def parse_endpoint_url(value: str) -> str:
    """Parse an http(s) URL that is requested unchanged, except that a path of `/` is removed.

    Raises `InvalidValueError`.
    """
    parts = _split(value, ("http", "https"))
    return _join(parts, "" if parts.path == "/" else parts.path)


def parse_proxy_url(value: str) -> str:
    """Parse `http://host:port` of a forward proxy. Raises `InvalidValueError`."""
    parts = _split(value, ("http",))
    if parts.path not in ("", "/"):
        raise InvalidValueError(
            Message("must not hold a path"), Message("write it as http://proxy.example:3128")
        )
    return _join(parts, "")


def parse_origin(value: str) -> str:
    """Parse `scheme://host[:port]` (RFC 6454), as browsers send it in `Origin`.

    Raises `InvalidValueError`.
    """
    parts = _split(value, ("http", "https"))
    if parts.path not in ("", "/"):
        raise InvalidValueError(
            Message("must not hold a path"), Message("write only scheme, host and port")
        )
    return _join(parts, "")


def parse_syslog_url(value: str) -> str:
    """Parse `udp|tcp|tls://host:port`. Raises `InvalidValueError`."""
    parts = _split(value, ("udp", "tcp", "tls"))
    if parts.port is None or parts.path not in ("", "/"):
        raise InvalidValueError(
            Message("needs host and port and nothing more"),
            Message("e.g. tls://syslog.example:6514"),
        )
    return _join(parts, "")


def parse_base_path(value: str) -> str:
    """Return a clean absolute path without trailing slash, "" for `/`.

    Raises `InvalidValueError`.
    """
    path = value.rstrip("/") if len(value.strip("/")) else value.replace("/", "", 1)
    if path == "":
        return ""
    if not path.startswith("/"):
        raise InvalidValueError(
            Message("must begin with a slash"), Message("write it like /fhir, or / for none")
        )
    for segment in path[1:].split("/"):
        if segment in ("", ".", "..") or not _SEGMENT.fullmatch(segment):
            raise InvalidValueError(
                Message("is not a clean path"),
                Message("use letters, digits, dots, hyphens and underscores, e.g. /fhir/r5"),
            )
    return path


def is_remote_plaintext(url: str) -> bool:
    """Return whether a checked URL would send its content unencrypted to another machine."""
    parts = urlsplit(url)
    return parts.scheme == "http" and not is_loopback_host(parts.hostname or "")


_URL = (Strict(), Field(json_schema_extra={"format": "uri"}), Unit("URL"))
BaseUrl = Annotated[str, *_URL, AfterValidator(parse_base_url)]
EndpointUrl = Annotated[str, *_URL, AfterValidator(parse_endpoint_url)]
ProxyUrl = Annotated[str, *_URL, AfterValidator(parse_proxy_url)]
Origin = Annotated[str, *_URL, AfterValidator(parse_origin)]
SyslogUrl = Annotated[str, *_URL, AfterValidator(parse_syslog_url)]
BasePath = Annotated[str, Strict(), AfterValidator(parse_base_path)]
