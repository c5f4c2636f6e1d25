"""The value types of the settings: addresses, sizes, durations, secrets, paths, networks, names.

Each type is checked by one function that raises `InvalidValueError` with a message and a hint for
the operator; neither ever repeats the value, which may be a secret under the wrong key.

Among the names are those of FHIR R5: interactions, resource types, operations. A name that can
never match is rejected, with the name that was probably meant.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    Strict,
    WithJsonSchema,
)

from gateway.config.problems import InvalidValueError, closest_key
from gateway.fhir.vocabulary import INTERACTIONS, OPERATIONS, RESOURCE_TYPES
from gateway.field_values import (
    FIELD_NAME_PATTERN,
    authority,
    is_host,
    is_loopback_host,
    is_reserved_field,
)
from gateway.i18n import Message
from gateway.secret import MASK, Secret


@dataclass(frozen=True, slots=True)
class Unit:
    """The name of a value type in the reference, e.g. `seconds` or `bytes`."""

    name: str


KIB: Final = 1024
MIB: Final = 1024 * KIB
GIB: Final = 1024 * MIB
_SIZE_UNITS: Final = {
    "": 1,
    "B": 1,
    "kB": 1000,
    "MB": 1000**2,
    "GB": 1000**3,
    "KiB": KIB,
    "MiB": MIB,
    "GiB": GIB,
}
_SIZE_PATTERN: Final = r"^[0-9]+ ?(B|kB|MB|GB|KiB|MiB|GiB)?$"
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([A-Za-z]*)", re.ASCII)
_SIZE_HINT: Final = Message("write a number of bytes, or a size such as 64KiB, 16MiB or 1GiB")


def parse_size(value: object) -> int:
    """Parse a number of bytes: a non-negative integer or a text such as `16MiB`.

    Raises `InvalidValueError`.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 0:
            raise InvalidValueError(Message("must not be negative"), _SIZE_HINT)
        return value
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    factor = _SIZE_UNITS.get(found[2]) if found else None
    if found is None or factor is None:
        raise InvalidValueError(Message("is not a size"), _SIZE_HINT)
    return int(found[1]) * factor


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """The address of a listener: `host` and `port` (0: any free one), or a unix socket's `path`."""

    host: str = ""
    port: int = 0
    path: str | None = None

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it; a unix socket counts as loopback."""
        return self.path is not None or is_loopback_host(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Whether it stands for every address of this machine."""
        return self.host in ("0.0.0.0", "::")  # nosec B104 # noqa: S104 - compared, not bound

    @property
    def client_address(self) -> ListenAddress:
        """The address for a client on this machine: loopback in place of a wildcard."""
        if not self.is_wildcard:
            return self
        return ListenAddress("::1" if ":" in self.host else "127.0.0.1", self.port)

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        return authority(self.host, self.port)


_ADDRESS: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+)):([0-9]{1,5})", re.ASCII)
_ADDRESS_HINT: Final = Message(
    "write host:port, e.g. 127.0.0.1:8080 or [::1]:8080, or unix:/run/dhp-gateway.sock"
)


def parse_address(value: object) -> ListenAddress:
    """Parse `host:port`, `[ipv6]:port` or `unix:/path`. Raises `InvalidValueError`."""
    if not isinstance(value, str):
        raise InvalidValueError(Message("is not an address"), _ADDRESS_HINT)
    if value.startswith("unix:"):
        return _unix_address(value.removeprefix("unix:"))
    found = _ADDRESS.fullmatch(value)
    host = (found[1] or found[2]) if found else ""
    if found is None or not is_host(host):
        raise InvalidValueError(Message("is not an address"), _ADDRESS_HINT)
    port = int(found[3])
    if port > 65535:
        raise InvalidValueError(Message("has a port above 65535"), _ADDRESS_HINT)
    return ListenAddress(host=host, port=port)


def _unix_address(path: str) -> ListenAddress:
    # The kernel's limit is 108 bytes with the final NUL (unix(7)).
    if not path.startswith("/"):
        raise InvalidValueError(Message("needs an absolute path after `unix:`"), _ADDRESS_HINT)
    if len(on_one_line(path).encode()) > 107:
        raise InvalidValueError(
            Message("is longer than the 107 bytes a unix socket's path may have"),
            Message("shorten it"),
        )
    return ListenAddress(path=path)


def _parse_secret(value: object) -> Secret:
    if not isinstance(value, str):
        raise InvalidValueError(Message("must be text"), Message("put it in quotes"))
    if not value.strip():
        raise InvalidValueError(Message("is empty"), Message("set the secret, or remove the key"))
    return Secret(_of_characters(value))


def _parse_path(value: object) -> Path:
    if not isinstance(value, str) or not value.strip():
        raise InvalidValueError(Message("is not a path"), Message("set the path of a file"))
    # A line break at its end, as of a variable from a file with CRLF, is never a part of the name.
    return Path(on_one_line(value))


def _of_characters(value: str) -> str:
    """Return a text unless it has surrogates, as bytes of a variable that are not UTF-8 become."""
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise InvalidValueError(Message("is not UTF-8 text"))
    return value


def on_one_line(value: str) -> str:
    """Return a text that is printed on one line. Raises `InvalidValueError` for any other."""
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise InvalidValueError(
            Message("contains a control character or a line break"), Message("write it on one line")
        )
    return _of_characters(value)


Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def parse_network(value: object) -> Network:
    """Parse an address or network of callers. Raises `InvalidValueError`."""
    hint = Message("write an address such as 10.20.0.7 or a network such as 10.20.0.0/16")
    if not isinstance(value, str):
        raise InvalidValueError(Message("is not a network"), hint)
    try:
        network = ipaddress.ip_network(value, strict=False)
    except ValueError:
        raise InvalidValueError(Message("is not a network"), hint) from None
    if "/" in value and str(network.network_address) != str(ipaddress.ip_interface(value).ip):
        raise InvalidValueError(
            Message("has bits after the prefix"),
            Message("did you mean {network}?", network=network),
        )
    return network


def _text(value: str) -> str:
    if not value.strip():
        raise InvalidValueError(Message("is empty"), Message("set a text, or remove the key"))
    return on_one_line(value)


def matching(pattern: str, problem: Message, hint: Message) -> AfterValidator:
    """Return the check that a pattern matches the whole text."""
    matches = re.compile(pattern, re.ASCII).fullmatch
    return _check(lambda value: matches(value) is not None, problem, hint)


def _not_reserved(problem: Message, hint: Message) -> AfterValidator:
    """Return the check that settings may decide about a header, or about those of a pattern."""
    return _check(lambda value: not is_reserved_field(value.encode()), problem, hint)


def _check(is_valid: Callable[[str], bool], problem: Message, hint: Message) -> AfterValidator:
    def check(value: str) -> str:
        if not is_valid(value):
            raise InvalidValueError(problem, hint)
        return value

    return AfterValidator(check)


_NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
_HEADER_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
_HEADERS_PATTERN: Final = rf"^{FIELD_NAME_PATTERN}\*?$"


_MEDIA_TYPE_PATTERN: Final = (
    r"^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(; ?[A-Za-z0-9_-]+=[A-Za-z0-9!#$&^_.+-]+)*$"
)

# Readers of JSON, as of `/status.json`, keep larger integers inexactly or not at all (RFC 8259
# section 6). Four times as much is still a number for parsers in C and for databases.
_MAX_INTEGER: Final = 2**53
# 3,000 years: a date so far ahead can still be written (datetime ends with the year 9999).
_MAX_SECONDS: Final = 10**11

Flag = Annotated[bool, Strict()]
Count = Annotated[int, Strict(), Field(ge=1, le=_MAX_INTEGER)]
Ratio = Annotated[float, Strict(), Field(ge=0, le=1, allow_inf_nan=False)]
_LIMITED: Final = (Strict(), Field(le=_MAX_SECONDS, allow_inf_nan=False), Unit("seconds"))
Seconds = Annotated[float, *_LIMITED, Field(ge=0)]
PositiveSeconds = Annotated[float, *_LIMITED, Field(gt=0)]
Text = Annotated[str, Strict(), Field(min_length=1), AfterValidator(_text)]


class PublicText(str):
    """A text that the operator has written for people to read, and that is shown as written."""

    __slots__ = ()


ShortPublicText = Annotated[
    Text,
    matching(r".{1,200}", Message("is longer than 200 characters"), Message("shorten it")),
    AfterValidator(PublicText),
    Field(json_schema_extra={"maxLength": 200}),
]
Name = Annotated[
    str,
    Strict(),
    matching(
        _NAME_PATTERN,
        Message("is not a usable name"),
        Message("use 1 to 64 letters, digits, dots, hyphens or underscores"),
    ),
    Field(json_schema_extra={"pattern": _NAME_PATTERN}),
]

MediaType = Annotated[
    str,
    Strict(),
    matching(
        _MEDIA_TYPE_PATTERN,
        Message("is not a media type"),
        Message("write it like application/fhir+json"),
    ),
    Field(json_schema_extra={"pattern": _MEDIA_TYPE_PATTERN}),
]
HeaderName = Annotated[
    str,
    Strict(),
    matching(
        _HEADER_PATTERN,
        Message("is not the name of a header"),
        Message("use letters, digits and hyphens, as in X-User"),
    ),
    _not_reserved(
        Message("is a header that already has a meaning"),
        Message("choose one of your own, e.g. X-User"),
    ),
    Field(json_schema_extra={"pattern": _HEADER_PATTERN}),
]
HeaderPattern = Annotated[
    str,
    Strict(),
    matching(
        _HEADERS_PATTERN,
        Message("is not the name of a header"),
        Message("use letters, digits and hyphens, as in X-Lab-Number or X-Hospital-*"),
    ),
    _not_reserved(
        Message("is or covers a header that the gateway decides about"),
        Message("name headers of your own, e.g. X-Lab-Number or X-Hospital-*"),
    ),
    Field(json_schema_extra={"pattern": _HEADERS_PATTERN}),
]
ParameterName = Annotated[
    str,
    Strict(),
    matching(
        r"[A-Za-z_][A-Za-z0-9_.:\-]{0,63}",
        Message("is not a search parameter"),
        Message("write only its name, e.g. date"),
    ),
]


def _size_type(minimum: int) -> Any:
    limits = {"minimum": minimum, "maximum": _MAX_INTEGER}
    schema = {"type": ["integer", "string"], **limits, "pattern": _SIZE_PATTERN}
    return (
        BeforeValidator(parse_size),
        Field(ge=minimum, le=_MAX_INTEGER),
        WithJsonSchema(schema),
        Unit("bytes"),
    )


Size = Annotated[int, *_size_type(0)]
PositiveSize = Annotated[int, *_size_type(1)]


def text_type(
    kind: Any,
    parse: Callable[[Any], object],
    unit: str,
    *,
    show: Callable[[Any], str] = str,
    shortest: int = 1,
    **schema: object,
) -> Any:
    """Return the metadata of `Annotated` for a value of the type `kind` that is text in settings.

    `parse` is not called for a value that has the type already.
    """

    def validate(value: object) -> object:
        return value if isinstance(value, kind) else parse(value)

    return (
        PlainValidator(validate),
        PlainSerializer(show, return_type=str),
        WithJsonSchema({"type": "string", "minLength": shortest, **schema}),
        Unit(unit),
    )


AddressText = Annotated[ListenAddress, *text_type(ListenAddress, parse_address, "address")]
SecretText = Annotated[
    Secret, *text_type(Secret, _parse_secret, "secret", show=lambda _: MASK, writeOnly=True)
]
FilePath = Annotated[Path, *text_type(Path, _parse_path, "path")]
NetworkText = Annotated[Network, *text_type(Network, parse_network, "network", shortest=2)]


_OPERATION: Final = r"\*|\$?[A-Za-z][A-Za-z0-9._\-]{0,63}"
_OPERATION_IN_URL: Final = re.compile(r".*/(\$[A-Za-z][A-Za-z0-9._\-]{0,63})", re.ASCII)
# Characters. In shorter names, one different letter may well make another word.
_MIN_SLIP_LENGTH: Final = 6


def similar_operation(name: str) -> str | None:
    """Return the known operation, with `$`, that an unknown name is similar to, else None.

    A platform may define further operations, so that an unknown name alone is no mistake.
    """
    if name == "*" or name.removeprefix("$") in OPERATIONS:
        return None
    near = _closest_name(name.removeprefix("$"), OPERATIONS)
    return None if near is None else f"${near}"


def _closest_name(wrong: str, known: Collection[str]) -> str | None:
    """Return the known name that was probably meant, alone or in a URL, else None.

    People copy `Patient/1/$everything` from a log, and `patient/*.read` from scopes.
    """
    wrong = wrong.partition("?")[0]
    words = re.findall(r"[\w-]+", wrong) or [wrong]
    last = {choice.lower(): choice for choice in known}.get(words[-1].lower())
    guesses = (closest_key(guess, known) for guess in (wrong, *reversed(words)))
    return last or next(filter(None, guesses), None)


def _known(
    known: Collection[str], problem: Message, hint: Message, *, has_wildcard: bool = True
) -> AfterValidator:
    """Return the check that a name is one of FHIR R5, or the wildcard `*` where there is one."""

    def check(value: str) -> str:
        if value not in known and not (has_wildcard and value == "*"):
            near = _closest_name(value, known)
            likely = hint if near is None else Message("did you mean {near}?", near=near)
            raise InvalidValueError(problem, likely)
        return value

    return AfterValidator(check)


_NO_TYPE: Final = Message("is not a resource type of FHIR R5")


def _operation(value: str) -> str:
    similar = similar_operation(value)
    if not re.fullmatch(_OPERATION, value) or (
        similar is not None and _is_slip(value.removeprefix("$"), similar.removeprefix("$"))
    ):
        if similar is None and (own := _OPERATION_IN_URL.fullmatch(value)):
            similar = own[1]
        known = Message("use * or names such as $expand")
        hint = known if similar is None else Message("did you mean {near}?", near=similar)
        raise InvalidValueError(Message("is not the name of a FHIR operation"), hint)
    return value


def _is_slip(wrong: str, right: str) -> bool:
    """Return whether two names differ by case, hyphens, order of letters, or one inner letter."""
    one, other = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (wrong, right))
    surplus, missing = Counter(one) - Counter(other), Counter(other) - Counter(one)
    if not surplus and not missing:
        return True
    is_close = surplus.total() <= 1 and missing.total() <= 1 and len(right) >= _MIN_SLIP_LENGTH
    return is_close and (one[0], one[-1]) == (other[0], other[-1])


Interaction = Annotated[
    str,
    Strict(),
    _known(
        INTERACTIONS,
        Message("is not a FHIR interaction"),
        Message("use * or some of {interactions}", interactions=", ".join(INTERACTIONS)),
    ),
    Field(json_schema_extra={"enum": ["*", *INTERACTIONS]}),
]
ResourceType = Annotated[
    str,
    Strict(),
    _known(
        RESOURCE_TYPES,
        _NO_TYPE,
        Message("write it as FHIR does, e.g. Observation"),
        has_wildcard=False,
    ),
    Field(json_schema_extra={"enum": sorted(RESOURCE_TYPES)}),
]
AnyResourceType = Annotated[
    str,
    Strict(),
    _known(RESOURCE_TYPES, _NO_TYPE, Message("use * or types such as Patient, Observation")),
    Field(json_schema_extra={"enum": ["*", *sorted(RESOURCE_TYPES)]}),
]
OperationName = Annotated[
    str,
    Strict(),
    AfterValidator(_operation),
    Field(json_schema_extra={"pattern": rf"^({_OPERATION})$"}),
]
