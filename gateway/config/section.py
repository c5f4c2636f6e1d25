"""The base of every group of settings, the files that settings name, secrets and placeholders.

Secrets that are given as files are read apart from validation. No secret is cached here: the code
that uses one reads it again when the file changed or the SSO rejected it. `named_files` yields the
files that settings name, each with its key. Placeholders of example settings have to be replaced by
the operator.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, model_validator

from gateway import os_support
from gateway.config.problems import InvalidValueError, SettingPath, dotted
from gateway.config.text_files import decode, read_bytes
from gateway.errors import StartError
from gateway.i18n import Message, setting_problem, system_error
from gateway.secret import Secret


class Section(BaseModel):
    """A frozen group of settings that refuses keys it does not know.

    A group with wrong values can be made without them, for checking only: reading one then raises
    `WrongSettingError`. A default in the place of a wrong value would cause problems that the
    settings do not have.
    """

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
        return {k: v for k, v in data.items() if v is not None or not cls.is_group(k)}

    @classmethod
    def is_group(cls, key: object) -> bool:
        """Return whether the value of a key is a group itself."""
        field = cls.model_fields.get(key) if isinstance(key, str) else None
        annotation = field.annotation if field else None
        return isinstance(annotation, type) and issubclass(annotation, Section)

    def secret_at(self, *setting: str | int) -> SecretRef:
        """Return the secret of this group whose key is the last part of `setting`, its path."""
        name = str(setting[-1])
        return SecretRef(setting, getattr(self, name, None), getattr(self, f"{name}_file"))

    if not TYPE_CHECKING:  # which would then take every attribute for one that exists

        def __getattr__(self, name: str) -> Any:
            if name in type(self).model_fields:
                raise WrongSettingError(name)
            return super().__getattr__(name)


_Settings = TypeVar("_Settings")
_Found = TypeVar("_Found")


class WrongSettingError(Exception):
    """A key was read that has a wrong value: wrong settings are checked without such keys."""


def find_in_right_part(
    finders: Iterable[Callable[[_Settings], Iterable[_Found]]], settings: _Settings
) -> Iterator[_Found]:
    """Yield what each finder finds, up to where it reads a key that has a wrong value."""
    for find in finders:
        with contextlib.suppress(WrongSettingError):
            yield from find(settings)


def _walk(value: Any, key: SettingPath = ()) -> Iterator[tuple[SettingPath, Any]]:
    """Yield every value that is no group, list or mapping, with its key."""
    inner: Iterable[tuple[str | int, Any]]
    if isinstance(value, Section):
        inner = value
    elif isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, tuple):
        inner = enumerate(value)
    else:
        yield key, value
        return
    for name, below in inner:
        yield from _walk(below, (*key, name))


def named_files(settings: Section) -> Iterator[tuple[SettingPath, Path]]:
    """Yield every file whose content the gateway reads, with its key.

    These are secrets, keys, certificates and trust roots.
    """
    for key, value in _walk(settings):
        if isinstance(value, Path) and str(key[-1]).endswith("_file"):
            yield key, value


# SECRET, CLIENT_ID and the like in capitals only: an issued value may be such a word. A key as JSON
# (JWK) is in braces too, and is no placeholder.
_PLACEHOLDER: Final = re.compile(
    r"<[^<>]*>|\$\{[^{}]*\}|\{\{[^{}]*\}\}|\.{3}|…"
    r"|(?i:x{3,}|\*{3,}|todo|placeholder|(?:your|replace)[-_ ]\S.*"
    r"|my[-_ ]client[-_ ](?:id|secret)|change[-_ ]?(?:me|it|this)\W*\d*)"
    r"|(?:CLIENT[-_ ]?)?(?:ID|SECRET)|PASSWORD|API[-_ ]?KEY"
)
PLACEHOLDER_MESSAGE: Final = Message("is still the example's placeholder")
PLACEHOLDER_HINT: Final = Message("put your own value in its place")


def is_placeholder(text: str) -> bool:
    """Return whether `text` is an unreplaced placeholder, such as `CLIENT_ID`."""
    return _PLACEHOLDER.fullmatch(text.strip(" \t\r\n\"'")) is not None


def find_placeholders(settings: Section) -> Iterator[SettingPath]:
    """Yield the keys whose values are placeholders."""
    for key, value in _walk(settings):
        if is_placeholder(value.reveal() if isinstance(value, Secret) else str(value)):
            yield key


# The longest known secret is an RSA key of 8192 bits, about 6 kB.
MAX_SECRET_BYTES: Final = 64 * 1024
MAKE_KEY: Final = Message("create one with: openssl rand -base64 32 | tr '+/' '-_'")
NO_KEY: Final = Message("is not 32 bytes as base64url")
_KEY_BYTES: Final = 32

RIGHT_FILE: Final = Message("check that it is the right file")
# By error number, where more than `RIGHT_FILE` is known. The placeholder `path` is the file's path.
_ERROR_HINTS: Final[dict[int, Message]] = {
    errno.ENOENT: Message(
        "check the path, or write the file: (umask 077; printf %s 'SECRET' > {path})"
    ),
    errno.EACCES: Message("let only the gateway's user read it"),
    errno.EISDIR: Message("name the file in it"),
}
_EMPTY_HINT: Final = Message("write the secret into it: (umask 077; printf %s 'SECRET' > {path})")


def _unreadable(key: str, path: Path, why: Message, hint: Message = RIGHT_FILE) -> StartError:
    hint = Message(hint.msgid, **hint.values, path=path)
    return StartError(setting_problem(key, Message("{path}: {why}", path=path, why=why), hint))


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A secret of the settings: the `value` of a key `x`, or the `file` that `x_file` names.

    `setting` is the path of `x`.
    """

    setting: SettingPath
    value: Secret | None
    file: Path | None

    @property
    def key(self) -> str:
        """The name of `x` in the notation of the documentation."""
        return dotted(self.setting)

    @property
    def file_key(self) -> str:
        """The name of `x_file`; an item of a list is named by the list's file."""
        setting = self.setting[:-1] if isinstance(self.setting[-1], int) else self.setting
        return f"{dotted(setting)}_file"

    @property
    def given_key(self) -> str:
        """The name of the key that gives the secret, `x` or `x_file`."""
        return self.key if self.file is None else self.file_key

    @property
    def is_given(self) -> bool:
        """Whether there is a value or a file."""
        return self.value is not None or self.file is not None

    def read(self) -> Secret | None:
        """Return the current secret, None without a value or a file. Raises `StartError`."""
        return self.value if self.file is None else read_secret_file(self.file_key, self.file)

    def fault(self, why: Message) -> tuple[str, Message]:
        """Return the key that gives the secret, and what is wrong with it, with the file's path."""
        if self.file is not None:
            why = Message("{path}: {why}", path=self.file, why=why)
        return self.given_key, why


def read_secret_file(key: str, path: Path) -> Secret:
    """Return the text of a file without its final line break. Raises `StartError`."""
    try:
        content = read_bytes(path, MAX_SECRET_BYTES)
    except OSError as error:
        why = system_error(error, Message("cannot be read"))
        hint = _ERROR_HINTS.get(error.errno or 0, RIGHT_FILE)
        raise _unreadable(key, path, why, hint) from None
    if len(content) > MAX_SECRET_BYTES:
        raise _unreadable(
            key,
            path,
            Message("is larger than {bytes} bytes", bytes=MAX_SECRET_BYTES),
        )
    try:
        text = decode(content)
    except InvalidValueError as error:
        raise _unreadable(key, path, error.message, error.hint or RIGHT_FILE) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise _unreadable(key, path, Message("is empty"), _EMPTY_HINT)
    if is_placeholder(text):
        raise _unreadable(key, path, PLACEHOLDER_MESSAGE, PLACEHOLDER_HINT)
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
            return Message("is in quotation marks, which would be part of it")
        if not all(end.isprintable() and not end.isspace() for end in (line[0], line[-1])):
            return Message("begins or ends with a blank or an invisible character")
    return None


def permission_problem(path: Path) -> Message | None:
    """Return the problem of a file that others can read, or its group or others write.

    None without such a problem. Raises OSError.
    """
    mode = path.stat().st_mode
    if not os_support.HAS_FILE_MODES or not mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return None
    if mode & (stat.S_IWOTH | stat.S_IWGRP):
        return Message("can be changed by others (mode {mode:04o})", mode=stat.S_IMODE(mode))
    return Message("can be read by others (mode {mode:04o})", mode=stat.S_IMODE(mode))
