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

from gateway import auditing
from gateway.config import Settings
from gateway.outbox.entry import BLOCKING, NEEDS_A_PERSON, Entry, Request, Response, State
from gateway.outbox.events import Event
from gateway.outbox.opening import opened, outbox_of
from gateway.outbox.queue import Outbox
from gateway.outbox.store import NotPossible, OutboxError, OutboxUnusable
from gateway.telemetry.audit import AuditTrail, NullAudit
from gateway.wiring import StartError

Say = Callable[[str], None]

_T = TypeVar("_T")

MASK: Final = "***"
_PAGE: Final = 500
_COLUMNS: Final = "{:<34}{:<11}{:<22}{:>9}{:>10}  {:<16}{}"
_AUDIT_FLUSH: Final = 5.0
_NOTED: Final = "noted for the audit: the gateway records it, running or at its next start"


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
    async with _opened(settings, NullAudit()) as outbox:
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
    async with _opened(settings, NullAudit()) as outbox:
        entry = await outbox.entry(entry_id)
        return None if entry is None else await _whole(outbox, entry, reveal=reveal)


async def moved(
    settings: Settings, action: str, ids: Sequence[str], say: Say, *, quiet: bool
) -> int:
    """Retry or drop entries; how many could not be. Raises `Trouble`."""
    refused = 0
    audit = _trail(settings)
    by = _by() if audit is None else None
    async with _opened(settings, audit or NullAudit()) as outbox:
        move = {"retry": outbox.retry, "drop": outbox.drop}[action]
        for entry_id in _progress(ids, action, quiet=quiet):
            try:
                entry = await move(entry_id, by)
            except NotPossible as refusal:
                say(f"{entry_id}: not possible, it is {refusal.state}")
                refused += 1
                continue
            refused += entry is None
            say(f"{entry_id}: {'there is no such entry' if entry is None else entry.state}")
    if audit is not None:
        await audit.close(_AUDIT_FLUSH)
    elif refused < len(ids):
        say(_NOTED)
    return refused


async def exported(
    settings: Settings, path: Path | None, states: Sequence[State], *, reveal: bool, quiet: bool
) -> int:
    """Write entries as JSON lines, to standard output without a path; how many. Raises `Trouble`.

    The file is for its owner only, and must not exist.
    """
    async with _opened(settings, NullAudit()) as outbox:
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
async def _opened(settings: Settings, audit: AuditTrail) -> AsyncIterator[Outbox]:
    def observe(event: Event) -> None:
        audit.event(
            "outbox",
            step=event.step.value,
            entry=event.entry.id,
            caller=event.entry.caller,
            by=_by(),
        )

    location = settings.outbox.url
    if location.kind == "sqlite" and not location.path.exists():
        # Made here it would belong to whoever runs the command.
        raise Trouble(f"outbox.url: {location.path}: is not there; the gateway makes it")
    try:
        async with opened(settings.outbox) as store:
            yield outbox_of(store, settings.outbox, observe)
    except OutboxUnusable as error:
        raise Trouble(str(error)) from None
    except OutboxError as error:
        raise Trouble(f"outbox.url: {settings.outbox.url}: {error}") from None


def _trail(settings: Settings) -> AuditTrail | None:
    """The audit; None: it is a file that the gateway has in hand, or whose owner is another."""
    if settings.audit.sink == "file" and not _is_mine(settings.audit.path):
        return None
    try:
        return auditing.open_trail(settings, lambda *_: None)
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
