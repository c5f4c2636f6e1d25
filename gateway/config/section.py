"""The base of every group of settings, the files that settings name, secrets and placeholders.

Secrets that are given as files are read apart from validation. No secret is cached here: the code
that uses one reads it again when the file changed or the SSO rejected it. `named_files` yields the
files that settings name, each with its key. Placeholders of example settings have to be replaced by
the operator.
"""

from __future__ import annotations

import base64
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, model_validator

from gateway import os_support
from gateway.config.problems import SettingPath, dotted
from gateway.config.text_files import TextDecodingError, decode, read_bytes
from gateway.i18n import EMPTY_MESSAGE, Message, setting_problem, system_error
from gateway.secret import Secret


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_groups(cls, data: Any) -> Any:
        # In YAML, a group whose keys are all commented out is null.
        if not isinstance(data, dict):
            return data
        return {k: v for k, v in data.items() if v is not None or not cls._is_group(k)}

    @classmethod
    def _is_group(cls, key: object) -> bool:
        field = cls.model_fields.get(key) if isinstance(key, str) else None
        annotation = field.annotation if field else None
        return isinstance(annotation, type) and issubclass(annotation, Section)


def named_files(value: Any, key: SettingPath = ()) -> Iterator[tuple[SettingPath, Path]]:
    """Yield every file whose content the gateway reads, with its key.

    These are secrets, keys, certificates and trust roots.
    """
    if isinstance(value, Path):
        if str(key[-1]).endswith("_file"):
            yield key, value
    elif isinstance(value, BaseModel):
        for field in type(value).model_fields:
            yield from named_files(getattr(value, field), (*key, field))
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            yield from named_files(inner, (*key, name))
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from named_files(inner, (*key, index))


# SECRET, CLIENT_ID and the like in capitals only: an issued value may be such a word. A key as JSON
# (JWK) is in braces too, and is no placeholder.
_PLACEHOLDER: Final = re.compile(
    r"<[^<>]*>|\$\{[^{}]*\}|\{\{[^{}]*\}\}|\.{3}|…"
    r"|(?i:x{3,}|\*{3,}|todo|placeholder|(?:your|replace)[-_ ]\S.*"
    r"|my[-_ ]client[-_ ](?:id|secret)|change[-_ ]?(?:me|it|this)\W*\d*)"
    r"|(?:CLIENT[-_ ]?)?(?:ID|SECRET)|PASSWORD|API[-_ ]?KEY"
)
MESSAGE: Final = Message("is still the example's placeholder")
HINT: Final = Message("put your own value in its place")


def is_placeholder(text: str) -> bool:
    """Return whether `text` is an unreplaced placeholder, such as `CLIENT_ID`."""
    return _PLACEHOLDER.fullmatch(text.strip(" \t\r\n\"'")) is not None


def find_placeholders(value: Any, setting: SettingPath = ()) -> Iterator[SettingPath]:
    """Yield the settings that hold a placeholder, in a value and everything below it."""
    if isinstance(value, Section):
        value = {name: getattr(value, name) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from find_placeholders(inner, (*setting, name))
    elif isinstance(value, tuple):
        for index, inner in enumerate(value):
            yield from find_placeholders(inner, (*setting, index))
    elif is_placeholder(value.reveal() if isinstance(value, Secret) else str(value)):
        yield setting


# The longest known secret is an RSA key of 8192 bits, about 6 kB.
MAX_SECRET_BYTES: Final = 64 * 1024
MAKE_KEY: Final = Message("make one with: openssl rand -base64 32 | tr '+/' '-_'")
NO_KEY: Final = Message("is not 32 bytes as base64url; {make_key}", make_key=MAKE_KEY)
_KEY_BYTES: Final = 32

_HINT: Final = Message("check that it is the right file")
# The placeholder `path` is the file's path.
_HINTS: Final[dict[str, Message]] = {
    "is empty": Message("write the secret into it: (umask 077; printf %s 'SECRET' > {path})"),
    "no such file or directory": Message(
        "check the path, or write the file: (umask 077; printf %s 'SECRET' > {path})"
    ),
    "permission denied": Message("let the gateway's user, and nobody else, read it"),
    "is a directory": Message("name the file in it"),
    MESSAGE: HINT,
}


class SecretReadError(Exception):
    """A secret's file cannot be used.

    `key` names the setting, `problem` the reason as a text for the operator, `hint` what to do.
    """

    def __init__(self, key: str, path: Path, why: Message, hint: Message = EMPTY_MESSAGE) -> None:
        self.key = key
        self.path = path
        self.problem = why
        self.hint = hint or Message(_HINTS.get(why, _HINT).msgid, path=path)
        message = Message("{path}: {why}; {hint}", path=path, why=why, hint=self.hint)
        super().__init__(setting_problem(key, message))


@dataclass(frozen=True, slots=True)
class SecretSource:
    """The source of the secret of one `setting`: the `value` itself, or a `file`."""

    setting: SettingPath
    value: Secret | None
    file: Path | None

    @property
    def key(self) -> str:
        """The setting's name in the notation of the documentation."""
        return dotted(self.setting)

    @property
    def is_given(self) -> bool:
        """Whether there is a value or a file."""
        return self.value is not None or self.file is not None

    def read(self) -> Secret | None:
        """Return the current secret, None without a value or a file. Raises `SecretReadError`."""
        if self.file is None:
            return self.value
        return read_secret_file(f"{self.key}_file", self.file)


def read_secret_file(key: str, path: Path) -> Secret:
    """Return the text of a file without its final line break. Raises `SecretReadError`."""
    try:
        content = read_bytes(path, MAX_SECRET_BYTES)
    except OSError as error:
        why = system_error(error, Message("cannot be read"))
        raise SecretReadError(key, path, why) from None
    if len(content) > MAX_SECRET_BYTES:
        raise SecretReadError(
            key,
            path,
            Message("is larger than {bytes} bytes", bytes=MAX_SECRET_BYTES),
        )
    try:
        text = decode(content)
    except TextDecodingError as error:
        raise SecretReadError(key, path, error.problem, error.hint) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise SecretReadError(key, path, Message("is empty"))
    if is_placeholder(text):
        raise SecretReadError(key, path, MESSAGE)
    return Secret(text)


def decode_encryption_key(secret: Secret) -> bytes | None:
    """Return the 32 bytes of an encryption key, None if it is invalid.

    The text is base64url, with or without padding.
    """
    encoded = secret.reveal().strip().rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return key if len(key) == _KEY_BYTES else None


def suspicious_surrounding(secret: Secret) -> Message | None:
    """Return what probably unintended surrounds a secret, or one of several lines, else None.

    That is quotation marks, white space or invisible characters; the secret is used all the same.
    """
    for line in filter(str.strip, secret.reveal().splitlines()):
        if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'`":
            return Message("stands between quotation marks, which would be part of it")
        if not all(end.isprintable() and not end.isspace() for end in (line[0], line[-1])):
            return Message("begins or ends with a blank or a character that nobody sees")
    return None


def permission_problem(path: Path) -> Message | None:
    """Return the problem of a file that others can read, or its group or others write.

    None without such a problem. Raises OSError.
    """
    mode = path.stat().st_mode
    if not os_support.HAS_FILE_MODES or not mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return None
    return Message("may be read or changed by others (mode {mode:04o})", mode=stat.S_IMODE(mode))
