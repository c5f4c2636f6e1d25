"""Text files as editors and shells write them: UTF-8, or the UTF-16 of PowerShell's `>`."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

from gateway.config.problems import InvalidValueError
from gateway.i18n import Message

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SAVE: Final = Message("save it as UTF-8; in PowerShell: Set-Content -Encoding utf8")


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return at most `max_bytes` + 1 bytes of the file. Raises OSError.

    The additional byte shows that the file is larger than `max_bytes`.
    """
    with path.open("rb") as file:
        return file.read(max_bytes + 1)


def decode(content: bytes) -> str:
    """Return the text without a byte order mark. Raises `InvalidValueError`."""
    try:
        text = content.decode("utf-16" if content.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidValueError(Message("is not UTF-8 text"), _SAVE) from None
    if "\0" in text:
        raise InvalidValueError(Message("is not UTF-8 text, but looks like UTF-16"), _SAVE)
    return text
