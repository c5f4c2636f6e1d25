"""Secrets that are given as files, read apart from validation.

Nothing here keeps a secret: the owner asks again when the file changed or the SSO refused.
"""

from __future__ import annotations

import base64
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import os_support
from gateway.config import placeholders
from gateway.config.problems import Setting, dotted
from gateway.config.text_file import NotText, decode, read_bytes
from gateway.secret import Secret

# The longest secret we know of is an RSA key of 8192 bits, about 6 kB.
MAX_SECRET_BYTES: Final = 64 * 1024
MAKE_KEY: Final = "make one with: openssl rand -base64 32 | tr '+/' '-_'"
NO_KEY: Final = f"is not 32 bytes as base64url; {MAKE_KEY}"
_KEY_BYTES: Final = 32

_HINT: Final = "check that it is the right file"
_WRITE: Final = "(umask 077; printf %s 'SECRET' > {path})"
_HINTS: Final = {
    "is empty": f"write the secret into it: {_WRITE}",
    "no such file or directory": f"check the path, or write the file: {_WRITE}",
    "permission denied": "let the gateway's user, and nobody else, read it",
    "is a directory": "name the file in it",
    placeholders.MESSAGE: placeholders.HINT,
}


class SecretUnreadable(Exception):  # noqa: N818 - named after the state, like Invalid
    """A secret's file gives no secret.

    `key` names the setting, `why` the reason in plain words, `hint` what to do.
    """

    def __init__(self, key: str, path: Path, why: str, hint: str = "") -> None:
        self.key = key
        self.path = path
        self.why = why
        self.hint = hint or _HINTS.get(why, _HINT).format(path=path)
        super().__init__(f"{key}: {path}: {why}; {self.hint}")


@dataclass(frozen=True, slots=True)
class SecretSource:
    """Where the secret of one `setting` comes from: given itself as `value`, or in a `file`."""

    setting: Setting
    value: Secret | None
    file: Path | None

    @property
    def key(self) -> str:
        """The setting's name as people write it."""
        return dotted(self.setting)

    @property
    def is_given(self) -> bool:
        """Whether there is one at all."""
        return self.value is not None or self.file is not None

    def read(self) -> Secret | None:
        """The secret now; None when neither is given. Raises `SecretUnreadable`."""
        if self.file is None:
            return self.value
        return read_secret_file(f"{self.key}_file", self.file)


def read_secret_file(key: str, path: Path) -> Secret:
    """The text of a file without its final line break. Raises `SecretUnreadable`."""
    try:
        content = read_bytes(path, MAX_SECRET_BYTES)
    except OSError as error:
        raise SecretUnreadable(key, path, (error.strerror or "cannot be read").lower()) from None
    if len(content) > MAX_SECRET_BYTES:
        raise SecretUnreadable(key, path, f"is larger than {MAX_SECRET_BYTES} bytes")
    try:
        text = decode(content)
    except NotText as error:
        raise SecretUnreadable(key, path, error.why, error.hint) from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise SecretUnreadable(key, path, "is empty")
    if placeholders.is_placeholder(text):
        raise SecretUnreadable(key, path, placeholders.MESSAGE)
    return Secret(text)


def key_of(secret: Secret) -> bytes | None:
    """The 32 bytes that a key for encryption is, in base64url with or without its padding."""
    encoded = secret.reveal().strip().rstrip("=")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except ValueError:
        return None
    return key if len(key) == _KEY_BYTES else None


def oddity(secret: Secret) -> str | None:
    """What surrounds a secret, or one of several, and is hardly meant: quotes, or what nobody sees.

    It is no reason to refuse it.
    """
    for line in filter(str.strip, secret.reveal().splitlines()):
        if len(line) > 1 and line[0] == line[-1] and line[0] in "\"'`":
            return "stands between quotation marks, which would be part of it"
        if not all(end.isprintable() and not end.isspace() for end in (line[0], line[-1])):
            return "begins or ends with a blank or a character that nobody sees"
    return None


def exposure(path: Path) -> str | None:
    """How others than its owner and group get at a file, if they do. Raises OSError."""
    mode = path.stat().st_mode
    if not os_support.HAS_FILE_MODES or not mode & (stat.S_IROTH | stat.S_IWOTH | stat.S_IWGRP):
        return None
    return f"may be read or changed by others (mode {stat.S_IMODE(mode):04o})"
