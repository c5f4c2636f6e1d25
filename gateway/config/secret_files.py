"""Secrets that are given as files, read apart from validation.

No secret is cached here: the code that uses one reads it again when the file changed or the SSO
rejected it.
"""

from __future__ import annotations

import base64
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import os_support
from gateway.config import placeholders
from gateway.config.problems import SettingPath, dotted
from gateway.config.text_file import TextDecodingError, decode, read_bytes
from gateway.i18n import EMPTY_MESSAGE, Message, setting_problem, system_error
from gateway.secret import Secret

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
    placeholders.MESSAGE: placeholders.HINT,
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
    if placeholders.is_placeholder(text):
        raise SecretReadError(key, path, placeholders.MESSAGE)
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
