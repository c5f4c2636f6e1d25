"""Names of rotated audit files, which sort by time and contain the number of the last record.

`audit.jsonl` becomes `audit.jsonl.20260301T083000Z-000000000042` and keeps that name.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TIME_FORMAT: Final = "%Y%m%dT%H%M%SZ"
_NAME: Final = re.compile(r"(.+)\.([0-9]{8}T[0-9]{6}Z)-[0-9]{12,}x*")


def rotated_path(path: Path, last: int, now: float) -> Path:
    """Return an unused name for the file at `path`, whose last record has the number `last`."""
    moment = time.strftime(_TIME_FORMAT, time.gmtime(now))
    target = path.with_name(f"{path.name}.{moment}-{last:012d}")
    while target.exists():
        target = target.with_name(f"{target.name}x")
    return target


def is_rotated(path: Path) -> bool:
    """Return whether the file has the name of a rotated file."""
    return _NAME.fullmatch(path.name) is not None


def files_rotated_since(path: Path, since: float) -> Iterator[Path]:
    """Yield the files that were rotated from `path` at `since` (Unix time) or later."""
    for file in path.parent.iterdir():
        name = _NAME.fullmatch(file.name)
        if name is not None and name[1] == path.name:
            try:
                moment = calendar.timegm(time.strptime(name[2], _TIME_FORMAT))
            except ValueError:
                continue
            if moment >= since:
                yield file
