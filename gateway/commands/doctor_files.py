"""The doctor's checks of files: whether the audit can be written, and which files only root reads.

The checks create no file: the gateway creates its files itself, so that its user owns them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from gateway import os_support
from gateway.commands.findings import CheckResult
from gateway.config import Settings
from gateway.i18n import Message
from gateway.process import reload

_AUDIT: Final = Message("audit audit.path")
# systemd creates folders here when it starts the service (LogsDirectory).
_SYSTEM_LOGS: Final = Path("/var/log")
_ROOT: Final = 0


def check_files(settings: Settings) -> Iterator[CheckResult]:
    """Yield the check of the audit file, and for root the files that only root may read."""
    if settings.audit.sink == "file" and settings.audit.path is not None:
        yield check_audit_file(settings.audit.path)
    if _is_root():
        yield from _for_root_only(settings)


def is_made_by_systemd(path: Path) -> bool:
    """Return whether the file's folder does not exist yet and systemd will create it."""
    folder = path.absolute().parent
    return folder.parent == _SYSTEM_LOGS and not folder.exists()


def check_audit_file(path: Path) -> CheckResult:
    """Check whether the audit file can be written; create nothing."""
    folder = path.absolute().parent
    make = Message(
        "Make it, for the gateway's user: install -d -m 0750 -o USER {folder}", folder=folder
    )
    if not folder.exists():
        if is_made_by_systemd(path) and _is_root():
            detail = Message(
                "{folder} is not there; systemd makes it at the first start (LogsDirectory)",
                folder=folder,
            )
            return CheckResult(
                _AUDIT, "skipped", detail, Message("Without systemd: {make}", make=make)
            )
        return CheckResult(_AUDIT, "failed", Message("{folder} is not there", folder=folder), make)
    if not folder.is_dir():
        return CheckResult(
            _AUDIT,
            "failed",
            Message("{folder} is no folder", folder=folder),
            Message("Give another audit.path"),
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        hint = Message("Its owner must be the gateway's user: chown USER {folder}", folder=folder)
        return CheckResult(
            _AUDIT, "failed", Message("{folder} cannot be written", folder=folder), hint
        )
    if path.exists() and not (path.is_file() and os.access(path, os.R_OK | os.W_OK)):
        hint = Message("It must be a file of the gateway's user: chown USER {path}", path=path)
        return CheckResult(_AUDIT, "failed", Message("{path} cannot be written", path=path), hint)
    owned = next((candidate for candidate in (path, folder) if candidate.exists()), folder)
    if _is_root() and owned.stat().st_uid == _ROOT:
        hint = Message("The gateway's user must: chown USER {owned}", owned=owned)
        return CheckResult(
            _AUDIT, "ok", Message("{owned} belongs to root, who can write it", owned=owned), hint
        )
    return CheckResult(_AUDIT, "ok", Message("{folder} can be written", folder=folder))


def _for_root_only(settings: Settings) -> Iterator[CheckResult]:
    hidden = [str(path) for path in reload.watched_files(settings) if _is_for_root_only(path)]
    if hidden:
        detail = Message("run as root; only root may read {hidden}", hidden=", ".join(hidden))
        hint = Message(
            "A gateway of another user needs them handed over (systemd's "
            "LoadCredential) or the right to read them; run the doctor as that "
            "user to be sure"
        )
        yield CheckResult(Message("files"), "ok", detail, hint)


def _is_for_root_only(path: Path) -> bool:
    try:
        file = path.resolve(strict=True)
        return _is_closed_to_service(file.stat(), stat.S_IRGRP, stat.S_IROTH) or any(
            _is_closed_to_service(folder.stat(), stat.S_IXGRP, stat.S_IXOTH)
            for folder in file.parents
        )
    except OSError:
        return False


def _is_closed_to_service(stat_result: os.stat_result, group: int, others: int) -> bool:
    if stat_result.st_uid != _ROOT or stat_result.st_mode & others:
        return False
    return stat_result.st_gid == _ROOT or not stat_result.st_mode & group


def _is_root() -> bool:
    return os_support.HAS_FILE_MODES and os.geteuid() == _ROOT
