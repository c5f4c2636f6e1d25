"""The URLs and URL paths of the settings: platform, SSO, proxies, syslog, store and database.

Every check raises `InvalidValueError`, which never repeats the URL: it may hold a password. The
URLs of the shared store and of the outbox's database are parsed into their parts, so that their
passwords are never shown by accident.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

from pydantic import AfterValidator, Field, Strict

from gateway.config.problems import InvalidValueError
from gateway.config.value_types import Unit, on_one_line, text_type
from gateway.field_values import authority, is_host, is_loopback_host, url_host
from gateway.i18n import Message, any_of
from gateway.secret import MASK, Secret

_UNCLEAN: Final = re.compile(r"[^!-~]|[\"<>\\^`{|}]")
_SEGMENT: Final = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)


def _split(
    value: str, schemes: Collection[str], *, allows_empty_segments: bool = False
) -> SplitResult:
    """Return the parts of an absolute URL without user, password, query and fragment."""
    # The hint must not propose http:// where the rule about plaintext would then reject it.
    proposed = [
        scheme for scheme in schemes if scheme != "http" or _allows_plaintext(value, schemes)
    ]
    example = Message("write it as {proposed}://host…", proposed=min(proposed, key=len))
    encoding = Message(
        "percent-encode it; host names in other letters are written in their xn-- form"
    )
    parts = _parse_url(value, encoding, example)
    if parts.scheme not in schemes:
        begins = any_of(f"{scheme}://" for scheme in sorted(proposed))
        raise InvalidValueError(Message("must begin with {begins}", begins=begins), example)
    if "@" in parts.netloc:
        raise InvalidValueError(
            Message("must not contain a user or password"), Message("remove everything up to the @")
        )
    if not parts.hostname or not is_host(parts.hostname):
        raise InvalidValueError(Message("has no valid host"), example)
    if "?" in value or "#" in value:
        raise InvalidValueError(
            Message("must not contain a query or fragment"),
            Message("remove everything after and including the ? or #"),
        )
    _clean_path(re.sub("/+", "/", parts.path) if allows_empty_segments else parts.path)
    return parts


def _split_server(
    value: str, schemes: Collection[str], unknown: Message, hint: Message
) -> SplitResult:
    """Return the parts of a server's URL, which may have a user and a password.

    Raises `InvalidValueError`, with `unknown` for a scheme that is not in `schemes`.
    """
    scheme, is_url, _ = value.partition("://")
    if not is_url or scheme not in schemes:
        raise InvalidValueError(unknown, hint)
    on_one_line(unquote(value))
    reserved = Message("percent-encode : / ? # [ ] @ in the password")
    parts = _parse_url(value, Message("percent-encode it"), reserved)
    if parts.fragment:
        raise InvalidValueError(
            Message("must not contain a fragment"),
            Message("percent-encode a # in the password as %23"),
        )
    return parts


def _parse_url(value: str, encoding_hint: Message, hint: Message) -> SplitResult:
    """Return the parts of a URL; raise `InvalidValueError`, by its character or by its form."""
    if _UNCLEAN.search(value):
        raise InvalidValueError(
            Message("contains a character that a URL may not contain"), encoding_hint
        )
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise InvalidValueError(
            Message("is not a URL: host or port cannot be read"), hint
        ) from None
    return parts


def _user_of(parts: SplitResult) -> str | None:
    """Return the user, percent-decoded, None without one."""
    return unquote(parts.username) if parts.username else None


def _password_of(parts: SplitResult) -> Secret | None:
    """Return the password, percent-decoded, None without one."""
    return Secret(unquote(parts.password)) if parts.password else None


def _userinfo(username: str | None, password: Secret | None) -> str:
    """Return user and masked password as they stand in a URL, with the @; "" without both."""
    user = quote(username or "", safe="") + ("" if password is None else f":{MASK}")
    return f"{user}@" if user else ""


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
            Message("has a path with empty, `.` or `..` parts"), Message("write the complete path")
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
    """Parse an http(s) URL whose path stays unchanged, because SSOs compare some as strings.

    Raises `InvalidValueError`.
    """
    # Some servers have a doubled slash in their endpoints, such as Glewlwyd in `//api/oidc/token`.
    parts = _split(value, ("http", "https"), allows_empty_segments=True)
    return _join(parts, parts.path)


def parse_proxy_url(value: str) -> str:
    """Parse `http://host:port` of a forward proxy. Raises `InvalidValueError`."""
    parts = _split(value, ("http",))
    if parts.path not in ("", "/"):
        raise InvalidValueError(
            Message("must not contain a path"), Message("write it as http://proxy.example:3128")
        )
    return _join(parts, "")


def parse_origin(value: str) -> str:
    """Parse `scheme://host[:port]` (RFC 6454), as browsers send it in `Origin`.

    Raises `InvalidValueError`.
    """
    parts = _split(value, ("http", "https"))
    if parts.path not in ("", "/"):
        raise InvalidValueError(
            Message("must not contain a path"), Message("write only scheme, host and port")
        )
    return _join(parts, "")


def parse_syslog_url(value: str) -> str:
    """Parse `udp|tcp|tls://host:port`. Raises `InvalidValueError`."""
    parts = _split(value, ("udp", "tcp", "tls"))
    if parts.port is None or parts.path not in ("", "/"):
        raise InvalidValueError(
            Message("must consist of host and port only"),
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


_UNKNOWN_DATABASE: Final = Message("is not a known kind of database")
_DATABASE_HINT: Final = Message(
    "write sqlite:////path/of/file.db (four slashes: the path is "
    "absolute), or "
    "postgresql://[user[:password]@]host[:port]/database[?sslmode=verify-full&sslrootcert=/path], "
    "for a Unix socket postgresql://user@/database?host=/run/postgresql"
)
_SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]
_SSL_MODES: Final[dict[str, _SslMode]] = {
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
    ssl_mode: _SslMode = "prefer"
    ssl_root_cert: Path | None = None

    def __str__(self) -> str:
        if self.kind == "sqlite":
            return f"sqlite:///{quote(str(self.path))}"
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
        userinfo = _userinfo(self.username, self.password)
        return f"postgresql://{userinfo}{host}/{quote(self.database, safe='')}{query}"


DEFAULT_DATABASE: Final = DatabaseLocation("sqlite", Path("/var/lib/dhp-gateway/outbox.db"))


def _parse_database_url(value: object) -> DatabaseLocation:
    """Parse a SQLite or PostgreSQL URL. Raises `InvalidValueError`."""
    if not isinstance(value, str):
        raise InvalidValueError(Message("must be text"), Message("put it in quotes"))
    parts = _split_server(value, ("sqlite", "postgresql"), _UNKNOWN_DATABASE, _DATABASE_HINT)
    return _file(parts) if parts.scheme == "sqlite" else _server(parts)


def _file(parts: SplitResult) -> DatabaseLocation:
    # In the customary form, an additional slash precedes the path: sqlite:/// + /absolute/path.
    path = unquote(parts.path[1:])
    if parts.netloc or parts.query or not path.startswith("/") or path.endswith("/"):
        raise InvalidValueError(Message("has no absolute path of a file"), _DATABASE_HINT)
    return DatabaseLocation("sqlite", Path(path))


def _server(parts: SplitResult) -> DatabaseLocation:
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = options.keys() - {"host", "sslmode", "sslrootcert"}
    if unknown:
        raise InvalidValueError(
            Message("contains an unknown option"),
            Message("{hint}; known: host, sslmode, sslrootcert", hint=_DATABASE_HINT),
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
        raise InvalidValueError(
            Message("has a sslrootcert that is no absolute path"), _DATABASE_HINT
        )
    database = unquote(parts.path[1:])
    if not database or "/" in database:
        raise InvalidValueError(Message("has no database"), _DATABASE_HINT)
    return DatabaseLocation(
        "postgresql",
        host=host,
        port=parts.port or 5432,
        database=database,
        username=_user_of(parts),
        password=_password_of(parts),
        ssl_mode=mode,
        ssl_root_cert=None if root is None else Path(root),
    )


def _host(parts: SplitResult, options: dict[str, str]) -> str:
    socket = options.get("host")
    if socket is None:
        if not parts.hostname or not is_host(parts.hostname):
            raise InvalidValueError(Message("has no valid host"), _DATABASE_HINT)
        return parts.hostname
    if parts.hostname or not socket.startswith("/"):
        raise InvalidValueError(Message("has no directory of a Unix socket"), _DATABASE_HINT)
    return socket


DatabaseUrl = Annotated[DatabaseLocation, *text_type(DatabaseLocation, _parse_database_url, "URL")]


_DATABASE: Final = re.compile(r"[0-9]{1,4}", re.ASCII)
_UNKNOWN_STORE: Final = Message("is not a known kind of store")
_STORE_HINT: Final = Message(
    "write memory://, redis://[user:password@]host[:port][/database], "
    "redis+sentinel://[user:password@]host[:port],host[:port]…/service[/database], the "
    "same with rediss:// or rediss+sentinel:// for TLS, or "
    "unix://[user:password@]/path/of/socket[?db=database]"
)
_SENTINEL_SCHEMES: Final = ("redis+sentinel", "rediss+sentinel")


@dataclass(frozen=True, slots=True)
class StoreLocation:
    """The location of tokens and sessions.

    The `kind` memory means this process; redis and rediss have `host` and `port`, unix has `path`.
    The server may be the one that `sentinels`, hosts with ports, name as the master of `service`;
    `username` and `password` are the server's own. `str` returns the URL with the password masked.
    """

    kind: Literal["memory", "redis", "rediss", "unix"] = "memory"
    host: str = ""
    port: int = 6379
    path: str = ""
    database: int = 0
    username: str | None = None
    password: Secret | None = None
    sentinels: tuple[tuple[str, int], ...] = ()
    service: str = ""

    def __str__(self) -> str:
        if self.kind == "memory":
            return "memory://"
        userinfo = _userinfo(self.username, self.password)
        if self.sentinels:
            hosts = ",".join(authority(host, port) for host, port in self.sentinels)
            service = quote(self.service, safe="")
            return f"{self.kind}+sentinel://{userinfo}{hosts}/{service}/{self.database}"
        prefix = f"{self.kind}://{userinfo}"
        if self.kind == "unix":
            return prefix + quote(self.path) + (f"?db={self.database}" if self.database else "")
        return f"{prefix}{authority(self.host, self.port)}/{self.database}"


def parse_store_url(value: object) -> StoreLocation:
    """Parse `memory://` or the URL of a Redis or Valkey. Raises `InvalidValueError`."""
    if not isinstance(value, str):
        raise InvalidValueError(Message("must be text"), Message("put it in quotes"))
    if value == "memory://":
        return StoreLocation()
    if value.partition("://")[0] in _SENTINEL_SCHEMES:
        return _sentinels(value)
    parts = _split_server(value, ("redis", "rediss", "unix"), _UNKNOWN_STORE, _STORE_HINT)
    if parts.scheme == "unix":
        return _socket(parts)
    host, port = _store_server(parts, 6379)
    return StoreLocation(
        kind="rediss" if parts.scheme == "rediss" else "redis",
        host=host,
        port=port,
        database=_database(parts.path.removeprefix("/")),
        username=_user_of(parts),
        password=_password_of(parts),
    )


def _store_server(parts: SplitResult, default_port: int) -> tuple[str, int]:
    if not parts.hostname or not is_host(parts.hostname):
        raise InvalidValueError(Message("has no valid host"), _STORE_HINT)
    if parts.query:
        raise InvalidValueError(Message("must not contain a query"), _STORE_HINT)
    return parts.hostname, parts.port or default_port


def _sentinels(value: str) -> StoreLocation:
    # A URL has one host (RFC 3986 section 3.2), so each host is parsed as that of a URL of its own.
    scheme, _, rest = value.partition("://")
    netloc, _, path = rest.partition("/")
    userinfo, at, hosts = netloc.rpartition("@")
    urls = [f"{scheme}://{userinfo}{at}{host}/{path}" for host in hosts.split(",")]
    several = [_split_server(url, _SENTINEL_SCHEMES, _UNKNOWN_STORE, _STORE_HINT) for url in urls]
    parts = several[0]
    service, _, database = parts.path.removeprefix("/").partition("/")
    if not service:
        raise InvalidValueError(Message("has no service"), _STORE_HINT)
    return StoreLocation(
        kind="rediss" if scheme == "rediss+sentinel" else "redis",
        database=_database(database),
        username=_user_of(parts),
        password=_password_of(parts),
        sentinels=tuple(_store_server(each, 26379) for each in several),
        service=unquote(service),
    )


def _socket(parts: SplitResult) -> StoreLocation:
    if parts.hostname or not parts.path.startswith("/"):
        raise InvalidValueError(Message("needs an absolute path"), _STORE_HINT)
    name, _, database = parts.query.partition("=")
    if parts.query and name != "db":
        raise InvalidValueError(Message("may contain no query except ?db="), _STORE_HINT)
    return StoreLocation(
        kind="unix",
        path=unquote(parts.path),
        database=_database(database),
        username=_user_of(parts),
        password=_password_of(parts),
    )


def _database(text: str) -> int:
    if text and not _DATABASE.fullmatch(text):
        raise InvalidValueError(Message("has a database that is not a number"), _STORE_HINT)
    return int(text or 0)


StoreUrl = Annotated[StoreLocation, *text_type(StoreLocation, parse_store_url, "URL")]
