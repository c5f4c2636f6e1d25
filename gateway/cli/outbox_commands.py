"""`dhp-gateway outbox`: shows and changes queued writes, with or without a running gateway.

The commands are `list`, `show`, `retry`, `drop` and `export`. Patient data is shown only with
`--reveal`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import click

from gateway.app import observability_setup, shared_stores
from gateway.audit.audit_trail import AuditTrail
from gateway.cli.terminal import (
    CHECK_FAILED,
    WRONG_USAGE,
    argument,
    as_json_option,
    config_option,
    current_language,
    exit_with_message,
    language_option,
    load_settings,
    option,
    print_line,
)
from gateway.cli.usage import LocalizedGroup
from gateway.clock import TimestampFormatter
from gateway.errors import StartError
from gateway.i18n import (
    EMPTY_MESSAGE,
    Message,
    exception_message,
    join_messages,
    setting_problem,
    system_error,
)
from gateway.os_support import is_there
from gateway.outbox.entry import (
    BLOCKING,
    NEEDS_OPERATOR,
    STATE_NAMES,
    Actor,
    EntryContent,
    EntryState,
    OutboxEntry,
    PendingAuditRecord,
    content_view,
    entry_view,
    format_time,
)
from gateway.outbox.open_outbox import open_outbox_store
from gateway.outbox.store.store_types import (
    EntryStateError,
    OutboxConfigurationError,
    OutboxError,
)

if TYPE_CHECKING:
    from gateway.config.settings import Settings
    from gateway.outbox.store.outbox_store import OutboxStore

ids_option = argument("ids", nargs=-1, metavar="[ID…]", help="Ids as `outbox list` shows them.")
all_option = option("--all", "every", is_flag=True, help="Entries of every state.")
states_option = option(
    "--state", multiple=True, metavar="STATE", help="Only these; may be given several times."
)
reveal_option = option(
    "--reveal", is_flag=True, help="Show address, fields and body: patient data."
)

app: Final = LocalizedGroup("outbox", help="Work with queued writes.", no_args_is_help=True)


def _load_settings(config: Path | None) -> Settings:
    settings = load_settings(config)
    if not settings.outbox.enabled:
        exit_with_message(Message("outbox.enabled: is false; there is no outbox"), WRONG_USAGE)
    return settings


def _states(names: Sequence[str], *, all_of_them: bool) -> tuple[EntryState, ...]:
    """Return the states to search for, by default those of entries that are not delivered.

    An empty tuple stands for all states.
    """
    if all_of_them:
        return ()
    try:
        return tuple(EntryState(name) for name in names) or tuple(BLOCKING)
    except ValueError:
        exit_with_message(
            Message("--state: one of {state}", state=", ".join(EntryState)), WRONG_USAGE
        )


@app.command("list")
@config_option
@all_option
@states_option
@option("--caller", metavar="NAME", help="Only of this caller.")
@as_json_option
@language_option
def list_(
    config: Path | None,
    every: bool,
    state: tuple[str, ...],
    caller: str | None,
    as_json: bool,
    lang: str | None,
) -> None:
    """List what is not delivered, what needs an operator first, and how many there are in all."""
    wanted = _states(state, all_of_them=every)
    entries, counts = asyncio.run(_list_entries(_load_settings(config), wanted, caller))
    if as_json:
        click.echo(json.dumps([entry_view(entry) for entry in entries], indent=2))
        return
    for line in _format_table(entries, counts):
        print_line(line)


@app.command()
@argument("entry", metavar="ID")
@config_option
@reveal_option
@as_json_option
@language_option
def show(
    entry: str,
    config: Path | None,
    reveal: bool,
    as_json: bool,
    lang: str | None,
) -> None:
    """Show one entry, with patient data masked."""
    found = asyncio.run(_show_entry(_load_settings(config), entry, reveal=reveal))
    if found is None:
        exit_with_message(Message("{entry}: there is no such entry", entry=entry), CHECK_FAILED)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for line in _format_entry(found):
        print_line(line)


@app.command()
@ids_option
@option("--failed", is_flag=True, help="All failed entries: none of them was saved.")
@option("--cause", metavar="CAUSE", help="All that failed for this cause, as listed.")
@config_option
@language_option
def retry(
    ids: tuple[str, ...],
    failed: bool,
    cause: str | None,
    config: Path | None,
    lang: str | None,
) -> None:
    """Send failed or unclear entries again, and waiting ones at once."""
    settings = _load_settings(config)
    if not (ids or failed or cause is not None):
        exit_with_message(Message("name the entries by their ids"), WRONG_USAGE)
    if failed or cause is not None:
        asyncio.run(_retry_failed(settings, cause))
    if ids:
        asyncio.run(_apply_action(settings, "retry", ids))


@app.command()
@ids_option
@option(
    "--reason",
    default="",
    metavar="TEXT",
    help="The reason, for the audit; nothing about a patient.",
)
@config_option
@language_option
def drop(
    ids: tuple[str, ...],
    reason: str,
    config: Path | None,
    lang: str | None,
) -> None:
    """Drop entries that are not delivered; the writes that waited for them continue."""
    settings = _load_settings(config)
    if not ids:
        exit_with_message(Message("name the entries by their ids"), WRONG_USAGE)
    asyncio.run(_apply_action(settings, "drop", ids, reason))


@app.command()
@argument(
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A new file, for its owner only; -: stdout.",
)
@config_option
@states_option
@reveal_option
@language_option
def export(
    file: Path,
    config: Path | None,
    state: tuple[str, ...],
    reveal: bool,
    lang: str | None,
) -> None:
    """Export all undelivered entries as JSON lines, with patient data masked."""
    wanted = _states(state, all_of_them=not state)
    path = None if str(file) == "-" else file
    count = asyncio.run(_export_entries(_load_settings(config), path, wanted, reveal=reveal))
    print_line(Message("{count} entries exported", count=count), err=True)


_PAGE_SIZE: Final = 500
# Seconds. Less than other processes wait for the outbox, which is locked meanwhile.
_AUDIT_FLUSH_TIMEOUT: Final = 2.0
_AUDIT_PENDING_MESSAGE: Final = Message(
    "noted for the audit: the gateway records it now or at its next start"
)
_NO_ENTRY: Final = Message("there is no such entry")


async def _list_entries(
    settings: Settings, states: Sequence[EntryState], caller: str | None
) -> tuple[list[OutboxEntry], dict[EntryState, int]]:
    """Return the entries and the number of entries by state. Raises `StartError`.

    Entries that need an operator come first; each part is in the order of arrival.
    """
    async with _open_outbox(settings) as outbox:
        entries = [entry async for entry in _entries(outbox, states, caller)]
        entries.sort(key=lambda entry: entry.state not in NEEDS_OPERATOR)
        return entries, (await outbox.depth()).counts


def _format_table(
    entries: Sequence[OutboxEntry], counts: dict[EntryState, int]
) -> Iterator[Message]:
    """Yield a table for the operator: a line for each entry, and the totals."""
    if entries:
        yield _row(
            id=Message("id"),
            state=Message("state"),
            since=Message("since"),
            attempts=Message("attempts"),
            bytes=Message("bytes"),
            caller=Message("caller"),
            cause=Message("cause"),
        )
    for entry in entries:
        yield _row(
            id=entry.id,
            state=STATE_NAMES[entry.state],
            since=format_time(entry.queued_at),
            attempts=entry.attempts,
            bytes=entry.size,
            caller=entry.caller,
            cause=entry.cause,
        )
    found = [
        Message("{count} {state}", count=counts[state], state=STATE_NAMES[state])
        for state in EntryState
        if counts.get(state)
    ]
    yield join_messages(", ", found) if found else Message("empty")


def _row(**cells: object) -> Message:
    # The names of states are longer in some languages.
    width = 2 + max(len(name.in_language(current_language())) for name in STATE_NAMES.values())
    pattern = "{id:<34}{state:<%d}{since:<22}{attempts:>9}{bytes:>10}  {caller:<20}{cause}"
    return Message(pattern % width, **cells)


async def _show_entry(settings: Settings, entry_id: str, *, reveal: bool) -> dict[str, Any] | None:
    """Return the view of one entry, None without such an entry. Raises `StartError`.

    With `reveal`, patient data is not masked. The access is stored as a pending audit record, which
    the gateway writes: on standard output, an audit record would be mixed with the output of the
    command.
    """
    actor = _actor(settings) if reveal else None
    async with _open_outbox(settings) as outbox:
        content = await outbox.content(entry_id, actor)
    if content is not None and actor is not None:
        print_line(_AUDIT_PENDING_MESSAGE, err=True)
    return None if content is None else content_view(content, reveal=reveal)


async def _apply_action(
    settings: Settings, action: str, ids: Sequence[str], reason: str = ""
) -> None:
    """Retry or drop entries; exit with code 1 if any is refused. Raises `StartError`."""
    refused = False
    async with _open_for_action(settings, reason) as (outbox, actor, changed_ids):
        to = {"retry": EntryState.WAITING, "drop": EntryState.DROPPED}[action]
        for entry_id in ids:
            try:
                entry = await outbox.apply_action(entry_id, to, actor=actor)
            except EntryStateError as refusal:
                print_line(setting_problem(entry_id, exception_message(refusal)))
                refused = True
                continue
            if entry is None:
                refused = True
            else:
                changed_ids.add(entry_id)
            result = _NO_ENTRY if entry is None else STATE_NAMES[entry.state]
            print_line(setting_problem(entry_id, result))
    if refused:
        raise click.exceptions.Exit(CHECK_FAILED)


async def _retry_failed(settings: Settings, cause: str | None) -> None:
    """Retry all failed entries, of one cause or of any. Raises `StartError`."""
    async with _open_for_action(settings) as (outbox, actor, changed_ids):
        async for entry in outbox.retry_failed(cause, actor):
            changed_ids.add(entry.id)
            print_line(setting_problem(entry.id, STATE_NAMES[entry.state]))


async def _export_entries(
    settings: Settings, path: Path | None, states: Sequence[EntryState], *, reveal: bool
) -> int:
    """Write entries as JSON lines, to standard output without a path. Return their number.

    Raises `StartError`. The file is readable for its owner only, and must not exist.
    """
    async with _open_outbox(settings) as outbox:
        entries = [entry async for entry in _entries(outbox, states or tuple(BLOCKING), None)]
        is_watched = path is not None and sys.stderr.isatty()
        with (
            _target(path) as file,
            click.progressbar(
                entries, label="export", file=sys.stderr, hidden=not is_watched
            ) as bar,
        ):
            for entry in bar:
                content = await outbox.content(entry.id) or EntryContent(entry, None, None)
                line = content_view(content, reveal=reveal)
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    return len(entries)


def _format_entry(document: dict[str, Any]) -> Iterator[Message]:
    """Yield one entry as lines for the operator."""
    for name, value in document.items():
        if isinstance(value, dict):
            yield Message("{name}:", name=Message(name))
            for key, inner in value.items():
                yield Message(
                    "  {line}", line=setting_problem(Message(key), _format_value(key, inner))
                )
        else:
            yield setting_problem(Message(name), _format_value(name, value))


def _format_value(name: str, value: Any) -> Message:
    """Return a value as a message; only values of closed lists are translated.

    A caller may have the name of a state, which must not be translated.
    """
    if value is None:
        return EMPTY_MESSAGE
    if isinstance(value, Message):
        return value
    if isinstance(value, bool):
        return Message("yes") if value else Message("no")
    if name == "state":
        return STATE_NAMES[EntryState(value)]
    if isinstance(value, dict):
        value = "".join(f"\n    {field}: {text}" for field, text in value.items())
    return Message(value) if name == "after_doubt" else Message("{value}", value=value)


def _require_database(path: Path) -> None:
    """Raise `StartError` if the file is not there.

    A file created here would belong to the user who runs the command.
    """
    try:
        if is_there(path):
            return
        problem = Message("{path}: does not exist; the gateway creates it", path=path)
    except OSError as error:
        why = system_error(error, Message("cannot be read"))
        problem = Message("{path}: {why}", path=path, why=why)
    raise StartError(setting_problem("outbox.url", problem))


@contextlib.asynccontextmanager
async def _open_outbox(settings: Settings) -> AsyncIterator[OutboxStore]:
    location = settings.outbox.url
    if location.kind == "sqlite":
        _require_database(location.path)
    try:
        key = shared_stores.outbox_key(settings.outbox)
        async with open_outbox_store(settings.outbox, key) as store:
            yield store
    except OutboxConfigurationError as error:
        raise StartError(exception_message(error)) from None
    except OutboxError as error:
        why = Message("{path}: {why}", path=settings.outbox.url, why=exception_message(error))
        raise StartError(setting_problem("outbox.url", why)) from None


@contextlib.asynccontextmanager
async def _open_for_action(
    settings: Settings, reason: str = ""
) -> AsyncIterator[tuple[OutboxStore, Actor | None, set[str]]]:
    """Yield the outbox, the actor, and a set for the ids of changed entries.

    The actor is None without an audit. Each step stores its pending audit record in its own
    transaction, so that the audit gets it even if the command fails later.
    """
    changed_ids: set[str] = set()
    actor = _actor(settings, reason)
    async with _open_outbox(settings) as outbox:
        try:
            yield outbox, actor, changed_ids
        finally:
            if (
                actor is not None
                and (why := await _flush_audit(outbox, settings, changed_ids)) is not None
            ):
                print_line(why)


async def _flush_audit(
    outbox: OutboxStore, settings: Settings, changed_ids: set[str]
) -> Message | None:
    """Write all pending audit records. Return a message unless `changed_ids` are recorded."""
    why = _AUDIT_PENDING_MESSAGE

    async def record(pending_records: Sequence[PendingAuditRecord]) -> bool:
        nonlocal why
        written = await _write_audit(settings, pending_records)
        if written:
            changed_ids.difference_update(pending.entry for pending in pending_records)
        elif written is not None:
            why = join_messages("; ", [Message("the audit cannot be written"), why])
        return bool(written)

    with contextlib.suppress(OutboxError):
        while await outbox.record_pending(record):
            pass
    return why if changed_ids else None


async def _write_audit(
    settings: Settings, pending_records: Sequence[PendingAuditRecord]
) -> bool | None:
    """Return whether the audit has the records now, None where this command must not write it."""
    lost = 0

    def count(outcome: str, records: int) -> None:
        nonlocal lost
        lost += records if outcome == "dropped" else 0

    audit = _trail(settings, count)
    if audit is None:
        return None
    try:
        spell = TimestampFormatter().format
        for pending in pending_records:
            audit.record_event("outbox", **pending.record_fields(spell))
    finally:
        await audit.close(_AUDIT_FLUSH_TIMEOUT)
    return not lost


def _trail(settings: Settings, on_records: Callable[[str, int], None]) -> AuditTrail | None:
    """Return the audit trail, None where this command must not write it.

    That is a file that a gateway has open, or that belongs to another user.
    """
    if settings.audit.sink == "file" and not _is_owned_by_user(settings.audit.path):
        return None
    try:
        return observability_setup.open_trail(settings, on_records)
    except StartError:
        return None


def _is_owned_by_user(path: Path | None) -> bool:
    # A file created here, or by a rotation, would belong to the user who runs the command.
    try:
        return path is not None and path.stat().st_uid == os.geteuid()
    except OSError:
        return False


def _actor(settings: Settings, reason: str = "") -> Actor | None:
    """Return the actor of this command, None without an audit."""
    if settings.audit.sink == "off":
        return None
    channel = f"command, user {os.getuid()}" if hasattr(os, "getuid") else "command"
    return Actor(channel, reason=reason)


async def _entries(
    outbox: OutboxStore, states: Sequence[EntryState], caller: str | None
) -> AsyncIterator[OutboxEntry]:
    after = 0
    while True:
        page = await outbox.entries(caller=caller, states=states, after=after, limit=_PAGE_SIZE)
        for entry in page:
            yield entry
        if len(page) < _PAGE_SIZE:
            return
        after = page[-1].number


@contextlib.contextmanager
def _target(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        why = system_error(error, Message("cannot be written"))
        raise StartError(Message("{path}: {why}", path=path, why=why)) from None
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        yield file
