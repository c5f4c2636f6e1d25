"""The URL of the outbox's database, parsed, so that its password is never shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode

from gateway.authority import url_host
from gateway.config.urls import password_of, split_server, user_of
from gateway.config.values import InvalidValueError, is_host, text_type
from gateway.i18n import Message
from gateway.secret import MASK, Secret

_UNKNOWN: Final = Message("is not a known kind of database")
_HINT: Final = Message(
    "write sqlite:////path/of/file.db (four slashes: the path is "
    "absolute), or "
    "postgresql://[user[:password]@]host[:port]/database[?sslmode=verify-full&sslrootcert=/path], "
    "for a Unix socket postgresql://user@/database?host=/run/postgresql"
)
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
_SSL_MODES: Final[dict[str, SslMode]] = {
    "disable": "disable",
    "prefer": "prefer",
    "require": "require",
    "verify-ca": "verify-ca",
    "verify-full": "verify-full",
}


@dataclass(frozen=True, slots=True)
class DatabaseLocation:
    """The location of the outbox: a SQLite file (`path`), or a database of a PostgreSQL server.

    `host` is a name, an address, or the directory of a Unix socket. `ssl_mode` has the meaning of
    libpq's sslmode; `ssl_root_cert` holds the CAs for the two modes that verify. `str` returns the
    URL with the password masked.
    """

    kind: Literal["sqlite", "postgresql"]
    path: Path = Path()
    host: str = ""
    port: int = 5432
    database: str = ""
    username: str | None = None
    password: Secret | None = None
    ssl_mode: SslMode = "prefer"
    ssl_root_cert: Path | None = None

    def __str__(self) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///{quote(str(self.path))}"
        user = quote(self.username or "", safe="")
        if self.password is not None:
            user += f":{MASK}"
        options: dict[str, str] = {}
        host = url_host(self.host)
        if self.host.startswith("/"):
            host, options["host"] = "", self.host
        if self.port != 5432:
            host += f":{self.port}"
        if self.ssl_mode != "prefer":
            options["sslmode"] = self.ssl_mode
        if self.ssl_root_cert is not None:
            options["sslrootcert"] = str(self.ssl_root_cert)
        query = f"?{urlencode(options, safe='/')}" if options else ""
        userinfo = f"{user}@" if user else ""
        return f"postgresql://{userinfo}{host}/{quote(self.database, safe='')}{query}"


DEFAULT_DATABASE: Final = DatabaseLocation("sqlite", Path("/var/lib/dhp-gateway/outbox.db"))


def parse_database_url(value: object) -> DatabaseLocation:
    """Parse a SQLite or PostgreSQL URL. Raises `InvalidValueError`."""
    if isinstance(value, DatabaseLocation):
        return value
    if not isinstance(value, str):
        raise InvalidValueError(Message("must be text"), Message("put it in quotes"))
    parts = split_server(value, ("sqlite", "postgresql"), _UNKNOWN, _HINT)
    return _file(parts) if parts.scheme == "sqlite" else _server(parts)


def _file(parts: SplitResult) -> DatabaseLocation:
    # In the customary form, an additional slash precedes the path: sqlite:/// + /absolute/path.
    path = unquote(parts.path[1:])
    if parts.netloc or parts.query or not path.startswith("/") or path.endswith("/"):
        raise InvalidValueError(Message("names no file by an absolute path"), _HINT)
    return DatabaseLocation("sqlite", Path(path))


def _server(parts: SplitResult) -> DatabaseLocation:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = options.keys() - {"host", "sslmode", "sslrootcert"}
    if unknown:
        raise InvalidValueError(
            Message("holds an unknown option"),
            Message("{hint}; known: host, sslmode, sslrootcert", hint=_HINT),
        )
    host = _host(parts, options)
    mode = _SSL_MODES.get(options.get("sslmode", "prefer"))
    if mode is None:
        raise InvalidValueError(
            Message("has an unknown sslmode"),
            Message("one of {ssl_modes}", ssl_modes=", ".join(_SSL_MODES)),
        )
    root = options.get("sslrootcert")
    if root is not None and not root.startswith("/"):
        raise InvalidValueError(Message("has a sslrootcert that is no absolute path"), _HINT)
    database = unquote(parts.path[1:])
    if not database or "/" in database:
        raise InvalidValueError(Message("names no database"), _HINT)
    return DatabaseLocation(
        "postgresql",
        host=host,
        port=parts.port or 5432,
        database=database,
        username=user_of(parts),
        password=password_of(parts),
        ssl_mode=mode,
        ssl_root_cert=None if root is None else Path(root),
    )


def _host(parts: SplitResult, options: dict[str, str]) -> str:
    socket = options.get("host")
    if socket is None:
        if not parts.hostname or not is_host(parts.hostname):
            raise InvalidValueError(Message("names no valid host"), _HINT)
        return parts.hostname
    if parts.hostname or not socket.startswith("/"):
        raise InvalidValueError(Message("names no directory of a Unix socket"), _HINT)
    return socket


DatabaseUrl = Annotated[DatabaseLocation, *text_type(parse_database_url, "URL")]
