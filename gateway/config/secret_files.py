"""Secrets that are given as files, read apart from validation.

Nothing here keeps a secret: the owner asks again when the file changed or the SSO refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.config.problems import Setting, dotted
from gateway.secret import Secret

# The longest secret we know of is an RSA key of 8192 bits, about 6 kB.
MAX_SECRET_BYTES: Final = 64 * 1024


_HINT: Final = "check that it is the right file"
_WRITE: Final = "(umask 077; printf %s 'SECRET' > {path})"
_HINTS: Final = {
    "is empty": f"write the secret into it: {_WRITE}",
    "no such file or directory": f"check the path, or write the file: {_WRITE}",
    "permission denied": "let the gateway's user, and nobody else, read it",
    "is a directory": "name the file in it",
}


class SecretUnreadable(Exception):  # noqa: N818 - named after the state, like Invalid
    """A secret's file gives no secret.

    `key` names the setting, `why` the reason in plain words, `hint` what to do.
    """

    def __init__(self, key: str, path: Path, why: str) -> None:
        self.key = key
        self.path = path
        self.why = why
        self.hint = _HINTS.get(why, _HINT).format(path=path)
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
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
    except OSError as error:
        raise SecretUnreadable(key, path, (error.strerror or "cannot be read").lower()) from None
    if len(content) > MAX_SECRET_BYTES:
        raise SecretUnreadable(key, path, f"is larger than {MAX_SECRET_BYTES} bytes")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SecretUnreadable(key, path, "is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.strip():
        raise SecretUnreadable(key, path, "is empty")
    return Secret(text)
