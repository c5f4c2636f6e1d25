"""The URL of the shared store, parsed, so that its password is never shown by accident."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, quote, unquote

from gateway.authority import authority
from gateway.config.urls import password_of, split_server, user_of
from gateway.config.values import InvalidValueError, is_host, text_type
from gateway.i18n import Message
from gateway.secret import MASK, Secret

_DATABASE: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_UNKNOWN: Final = Message("is not a known kind of store")
_HINT: Final = Message(
    "write memory://, redis://[user:password@]host[:port][/database], the "
    "same with rediss:// for TLS, or "
    "unix://[user:password@]/path/of/socket[?db=database]"
)


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """The location of tokens and sessions.

    The `kind` memory means this process; redis and rediss have `host` and `port`, unix has `path`.
    `str` returns the URL with the password masked.
    """

    kind: Literal["memory", "redis", "rediss", "unix"] = "memory"
    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    username: str | None = None
    password: Secret | None = None

    def __str__(self) -> str:
        if self.kind == "memory":
            return "memory://"
        user = quote(self.username or "", safe="")
        if self.password is not None:
            user += f":{MASK}"
        prefix = f"{self.kind}://{user}@" if user else f"{self.kind}://"
        if self.kind == "unix":
            return prefix + quote(self.path) + (f"?db={self.database}" if self.database else "")
        return f"{prefix}{authority(self.host, self.port)}/{self.database}"


def parse_store_url(value: object) -> StoreLocation:
    """Parse `memory://` or the URL of a Redis or Valkey. Raises `InvalidValueError`."""
    if isinstance(value, StoreLocation):
        return value
    if not isinstance(value, str):
        raise InvalidValueError(Message("must be text"), Message("put it in quotes"))
    if value == "memory://":
        return StoreLocation()
    parts = split_server(value, ("redis", "rediss", "unix"), _UNKNOWN, _HINT)
    if parts.scheme == "unix":
        return _socket(parts)
    if not parts.hostname or not is_host(parts.hostname):
        raise InvalidValueError(Message("names no valid host"), _HINT)
    if parts.query:
        raise InvalidValueError(Message("must not hold a query"), _HINT)
    return StoreLocation(
        kind="rediss" if parts.scheme == "rediss" else "redis",
        host=parts.hostname,
        port=parts.port or 6379,
        database=_database(parts.path.removeprefix("/")),
        username=user_of(parts),
        password=password_of(parts),
    )


def _socket(parts: SplitResult) -> StoreLocation:
    if parts.hostname or not parts.path.startswith("/"):
        raise InvalidValueError(Message("needs an absolute path"), _HINT)
    name, _, database = parts.query.partition("=")
    if parts.query and name != "db":
        raise InvalidValueError(Message("may hold no other query than ?db="), _HINT)
    return StoreLocation(
        kind="unix",
        path=unquote(parts.path),
        database=_database(database),
        username=user_of(parts),
        password=password_of(parts),
    )


def _database(text: str) -> int:
    if text and not _DATABASE.fullmatch(text):
        raise InvalidValueError(Message("names a database that is no number"), _HINT)
    return int(text or 0)


StoreUrl = Annotated[StoreLocation, *text_type(parse_store_url, "URL")]
