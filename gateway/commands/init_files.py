"""Writes the files that `dhp-gateway init` has planned: all or none, without overwriting any."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway import os_support
from gateway.commands.init_plan import InitPlan, Kind, YamlLine, compose_lines, settings_lines
from gateway.config import placeholders
from gateway.config.text_file import TextDecodingError, read_text
from gateway.config.yaml_file import parse_yaml
from gateway.i18n import Message, join_messages, system_error

# User and group of the container image.
_IMAGE_USER: Final = 10001
_SERVICE_USER: Final = "dhp-gateway"
Ids = tuple[int, int]


class InitWriteError(Exception):
    """Nothing was written. The text has a line for each reason."""

    def __init__(self, why: Message) -> None:
        super().__init__(why)


@dataclass(frozen=True, slots=True)
class _PlannedFile:
    path: Path
    text: str
    mode: int
    owner: Ids | None = None


def settings_text(plan: InitPlan, spell: Callable[[Message], str]) -> str:
    """Return the settings file's text; `spell` translates its comments."""
    return _spelled(settings_lines(plan), spell)


def _spelled(lines: Iterable[YamlLine], spell: Callable[[Message], str]) -> str:
    text = ""
    for depth, line, meaning in lines:
        # The keys of a list item have the indentation of the item's first key.
        text += "  " * depth + line + (f"  # {spell(meaning)}" if meaning else "") + "\n"
    return text


def require_no_settings(directory: Path) -> None:
    """Raise `InitWriteError` if a settings file exists.

    Called before the first question is asked.
    """
    _require_absent([directory / "gateway.yaml"])


def write_files(plan: InitPlan, spell: Callable[[Message], str]) -> list[Path]:
    """Write all files and return their paths. Raises `InitWriteError`; then nothing is written."""
    files = list(_planned_files(plan, spell))
    _require_absent(file.path for file in files)
    with contextlib.ExitStack() as undo:
        try:
            for folder, mode, owner in _folders(plan):
                _make_folder(folder, mode, owner, undo)
            for file in files:
                _write_file(file, undo)
        except OSError as error:
            why = system_error(error, Message("cannot be written"))
            raise InitWriteError(Message("{path}: {why}", path=error.filename, why=why)) from None
        undo.pop_all()
    return [file.path for file in files]


def _require_absent(paths: Iterable[Path]) -> None:
    taken = [path for path in paths if not _may_be_written(path)]
    if taken:
        reason = Message("is there already, and nothing was changed; move it away first")
        lines = (Message("{path}: {why}", path=path, why=reason) for path in taken)
        raise InitWriteError(join_messages("\n", lines))


def _planned_files(plan: InitPlan, spell: Callable[[Message], str]) -> Iterator[_PlannedFile]:
    for secret_file in plan.secret_files():
        owner = _owner(plan.kind, for_service=secret_file.for_service)
        mode = 0o600 if owner is None or not secret_file.for_service else 0o400
        yield _PlannedFile(
            plan.directory / secret_file.path, f"{secret_file.text.reveal()}\n", mode, owner
        )
    if plan.kind == "container":
        user = _owner(plan.kind, for_service=True) or (os.getuid(), os.getgid())
        text = _spelled(compose_lines(plan, f"{user[0]}:{user[1]}"), spell)
        yield _PlannedFile(plan.directory / "compose.yaml", text, 0o644)
    # Last: where the settings file exists, all other files exist too.
    yield _PlannedFile(plan.directory / "gateway.yaml", settings_text(plan, spell), 0o644)


def _folders(plan: InitPlan) -> Iterator[tuple[Path, int, Ids | None]]:
    yield plan.directory, 0o755, None
    owner = _owner(plan.kind, for_service=True) if plan.kind == "container" else None
    yield plan.directory / "secrets", 0o700, owner
    if plan.kind == "container" and plan.audit == "file":
        yield plan.directory / "audit", 0o750, owner
    if plan.kind == "container" and plan.outbox_key is not None:
        yield plan.directory / "outbox", 0o700, owner


def _owner(kind: Kind, *, for_service: bool) -> Ids | None:
    """Return the owner of a secret file, None for the user who runs the command."""
    if not os_support.HAS_FILE_MODES or os.geteuid() != 0:
        return None
    if kind == "container":
        return _IMAGE_USER, _IMAGE_USER
    if kind != "system" or not for_service:
        return None
    import pwd

    try:
        account = pwd.getpwnam(_SERVICE_USER)
    except KeyError:
        return None
    return account.pw_uid, account.pw_gid


def _may_be_written(path: Path) -> bool:
    """Return whether the path is free or holds an empty file or an unchanged template.

    An installation creates such files to be filled in.
    """
    try:
        return not os.path.lexists(path) or path.stat().st_size == 0 or _is_template(path)
    except OSError:
        return False


def _is_template(path: Path) -> bool:
    if path.name != "gateway.yaml" or os.path.lexists(_aside(path)):
        return False
    try:
        values = parse_yaml(read_text(path), path.name).values
        client_id = values["credentials"]["default"]["client_id"]
    except (OSError, TextDecodingError, LookupError, TypeError):
        return False
    return isinstance(client_id, str) and placeholders.is_placeholder(client_id)


def _aside(path: Path) -> Path:
    return path.with_name(f"{path.name}.example")


def _make_folder(folder: Path, mode: int, owner: Ids | None, undo: contextlib.ExitStack) -> None:
    if folder.is_dir():
        return
    folder.mkdir(mode=mode, parents=folder.name not in ("secrets", "audit", "outbox"))
    undo.callback(folder.rmdir)
    if owner is not None:
        os.chown(folder, *owner)


def _write_file(planned: _PlannedFile, undo: contextlib.ExitStack) -> None:
    path = planned.path
    if _is_template(path):
        path.rename(_aside(path))
        undo.callback(_aside(path).rename, path)
    elif path.exists():
        path.unlink()
        undo.callback(path.touch, planned.mode)
    # No other user can read it at any moment, not even while it is empty.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    undo.callback(path.unlink)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(planned.text)
    if planned.owner is not None:
        os.chown(path, *planned.owner)
    path.chmod(planned.mode)
