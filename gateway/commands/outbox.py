"""`dhp-gateway outbox`: looks after queued writes, beside a running gateway or without one.

What is about a patient is shown only with `--reveal`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO, TypeVar

from gateway.audit.trail import AuditTrail
from gateway.config import Settings
from gateway.outbox.entry import BLOCKING, NEEDS_A_PERSON, Entry, Request, Response, State
from gateway.outbox.events import Note
from gateway.outbox.opening import opened, outbox_of
from gateway.outbox.queue import Outbox
from gateway.outbox.store import NotPossible, OutboxError, OutboxUnusable
from gateway.process import audit_factory
from gateway.process.factories import StartError
from gateway.telemetry.timestamp import Timestamp

Say = Callable[[str], None]

_T = TypeVar("_T")

MASK: Final = "***"
_PAGE: Final = 500
_COLUMNS: Final = "{:<34}{:<11}{:<22}{:>9}{:>10}  {:<16}{}"
# Less than others wait for the outbox, which is locked meanwhile.
_AUDIT_FLUSH: Final = 2.0
_NOTED: Final = "noted for the audit: the gateway records it, running or at its next start"
_FAILED: Final = "the audit cannot be written"


class Trouble(Exception):  # noqa: N818 - for the operator
    """The outbox could not be opened or used; the text says why, in plain words."""


def states_of(names: Sequence[str], *, all_of_them: bool) -> tuple[State, ...]:
    """The states to look for, by default those that wait for a person. Raises ValueError."""
    if all_of_them:
        return ()
    return tuple(State(name) for name in names) or tuple(NEEDS_A_PERSON)


async def listed(
    settings: Settings, states: Sequence[State], caller: str | None
) -> tuple[list[Entry], dict[State, int]]:
    """The entries, and how many there are of each state. Raises `Trouble`."""
    async with _opened(settings) as outbox:
        entries = [each async for each in _entries(outbox, states, caller)]
        return entries, (await outbox.depth()).counts


def table(entries: Sequence[Entry], counts: dict[State, int]) -> Iterator[str]:
    """For people: a line each, and what there is in all."""
    if entries:
        yield _COLUMNS.format("id", "state", "since", "attempts", "bytes", "caller", "cause")
    for entry in entries:
        yield _COLUMNS.format(
            entry.id,
            entry.state.value,
            _moment(entry.queued_at),
            entry.attempts,
            entry.size,
            entry.caller,
            entry.cause,
        )
    yield ", ".join(f"{counts[state]} {state}" for state in State if counts.get(state)) or "empty"


def facts(entry: Entry) -> dict[str, Any]:
    """What everybody may see of an entry."""
    return {
        "id": entry.id,
        "state": entry.state.value,
        "caller": entry.caller,
        "queued_at": _moment(entry.queued_at),
        "due_at": _moment(entry.due_at) if entry.state is State.WAITING else None,
        "finished_at": None if entry.finished_at is None else _moment(entry.finished_at),
        "attempts": entry.attempts,
        "bytes": entry.size,
        "in_doubt": entry.doubt,
        "after_doubt": entry.recovery.value,
        "cause": entry.cause,
    }


async def shown(settings: Settings, entry_id: str, *, reveal: bool) -> dict[str, Any] | None:
    """All of one entry; None: there is none. Raises `Trouble`."""
    async with _opened(settings) as outbox:
        entry = await outbox.entry(entry_id)
        return None if entry is None else await _whole(outbox, entry, reveal=reveal)


async def moved(
    settings: Settings, action: str, ids: Sequence[str], say: Say, *, quiet: bool
) -> int:
    """Retry or drop entries; how many could not be. Raises `Trouble`.

    Each step is noted in its own transaction, so that an audit will have it whatever comes after.
    """
    refused = 0
    noted: set[str] = set()
    by = None if settings.audit.sink == "off" else _by()
    async with _opened(settings) as outbox:
        move = {"retry": outbox.retry, "drop": outbox.drop}[action]
        try:
            for entry_id in _progress(ids, action, quiet=quiet):
                try:
                    entry = await move(entry_id, by)
                except NotPossible as refusal:
                    say(f"{entry_id}: not possible, it is {refusal.state}")
                    refused += 1
                    continue
                if entry is None:
                    refused += 1
                elif by is not None:
                    noted.add(entry_id)
                say(f"{entry_id}: {'there is no such entry' if entry is None else entry.state}")
        finally:
            if by is not None and (why := await _left(outbox, settings, noted)) is not None:
                say(why)
    return refused


async def exported(
    settings: Settings, path: Path | None, states: Sequence[State], *, reveal: bool, quiet: bool
) -> int:
    """Write entries as JSON lines, to standard output without a path; how many. Raises `Trouble`.

    The file is for its owner only, and must not exist.
    """
    async with _opened(settings) as outbox:
        entries = [each async for each in _entries(outbox, states or tuple(BLOCKING), None)]
        with _target(path) as file:
            for entry in _progress(entries, "export", quiet=quiet or path is None):
                line = await _whole(outbox, entry, reveal=reveal)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(entries)


def lines(document: dict[str, Any]) -> Iterator[str]:
    """One entry for people."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield f"{name}:"
            for key, inner in value.items():
                yield f"  {key}: {'' if inner is None else inner}"
        else:
            yield f"{name}: {'' if value is None else value}"


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Outbox]:
    location = settings.outbox.url
    if location.kind == "sqlite" and not location.path.exists():
        # Made here it would belong to whoever runs the command.
        raise Trouble(f"outbox.url: {location.path}: is not there; the gateway makes it")
    try:
        async with opened(settings.outbox) as store:
            yield outbox_of(store, settings.outbox, lambda _: None)
    except OutboxUnusable as error:
        raise Trouble(str(error)) from None
    except OutboxError as error:
        raise Trouble(f"outbox.url: {settings.outbox.url}: {error}") from None


async def _left(outbox: Outbox, settings: Settings, noted: set[str]) -> str | None:
    """Have the audit take all that is noted; what to say where it did not take all of `noted`."""
    why = _NOTED

    async def record(notes: Sequence[Note]) -> bool:
        nonlocal why
        written = await _written(settings, notes)
        if written:
            noted.difference_update(note.entry for note in notes)
        elif written is not None:
            why = f"{_FAILED}; {_NOTED}"
        return bool(written)

    with contextlib.suppress(OutboxError):
        while await outbox.take_notes(record):
            pass
    return why if noted else None


async def _written(settings: Settings, notes: Sequence[Note]) -> bool | None:
    """Whether the audit has them now; None: it is not this command's to write."""
    lost = 0

    def count(outcome: str, records: int) -> None:
        nonlocal lost
        lost += records if outcome == "dropped" else 0

    audit = _trail(settings, count)
    if audit is None:
        return None
    try:
        spell = Timestamp().iso
        for note in notes:
            audit.event("outbox", **note.facts(spell))
    finally:
        await audit.close(_AUDIT_FLUSH)
    return not lost


def _trail(settings: Settings, on_records: Callable[[str, int], None]) -> AuditTrail | None:
    """The audit; None: it is a file that the gateway has in hand, or whose owner is another."""
    if settings.audit.sink == "file" and not _is_mine(settings.audit.path):
        return None
    try:
        return audit_factory.open_trail(settings, on_records)
    except StartError:
        return None


def _is_mine(path: Path | None) -> bool:
    # A file that is made here, or by a rotation, would belong to whoever runs the command.
    try:
        return path is not None and path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _by() -> str:
    return f"command, user {os.getuid()}" if hasattr(os, "getuid") else "command"


async def _entries(
    outbox: Outbox, states: Sequence[State], caller: str | None
) -> AsyncIterator[Entry]:
    after = 0
    while True:
        page = await outbox.entries(caller=caller, states=states, after=after, limit=_PAGE)
        for entry in page:
            yield entry
        if len(page) < _PAGE:
            return
        after = page[-1].number


async def _whole(outbox: Outbox, entry: Entry, *, reveal: bool) -> dict[str, Any]:
    request = await outbox.request(entry.id)
    response = await outbox.response(entry.id)
    return {
        **facts(entry),
        "request": None if request is None else _request(request, reveal=reveal),
        "answer": None if response is None else _response(response, reveal=reveal),
    }


def _request(request: Request, *, reveal: bool) -> dict[str, Any]:
    known = {
        "method": request.method,
        "interaction": request.interaction,
        "resource": request.resource,
        "request_id": request.request_id,
        "credential": request.credential,
        "address": request.suffix if reveal else MASK,
    }
    if not reveal:
        return {**known, "body": MASK if request.body else ""}
    fields = {name.decode("latin-1"): text.decode("latin-1") for name, text in request.fields}
    return {**known, "fields": fields, "body": request.body.decode("utf-8", "replace")}


def _response(response: Response, *, reveal: bool) -> dict[str, Any]:
    known = {"status": response.status, "reason": response.reason, "note": response.note}
    body = response.body.decode("utf-8", "replace") if reveal else MASK if response.body else ""
    return {**known, "body": body}


@contextlib.contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        why = (error.strerror or "cannot be written").lower()
        raise Trouble(f"{path}: {why}") from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield file


def _progress(items: Sequence[_T], what: str, *, quiet: bool) -> Iterable[_T]:
    """Shows on a terminal how far it is."""
    if quiet or not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    return track(items, what, console=Console(stderr=True), transient=True)


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
