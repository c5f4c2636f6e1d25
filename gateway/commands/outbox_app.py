"""The command line of `dhp-gateway outbox`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from gateway.commands.shared import (
    CHECK_FAILED,
    NO_START,
    WRONG_USAGE,
    as_json_option,
    config_option,
    exit_with_message,
    load_settings,
)
from gateway.commands.terminal import argument, language_option, option, print_line
from gateway.commands.usage import LocalizedGroup
from gateway.i18n import Message, exception_message

if TYPE_CHECKING:
    from gateway.config import Settings

ids_option = argument("ids", nargs=-1, metavar="[ID…]", help="As `outbox list` shows them.")
all_option = option("--all", "every", is_flag=True, help="Entries of every state.")
states_option = option(
    "--state", multiple=True, metavar="STATE", help="Only these; may be given several times."
)
reveal_option = option(
    "--reveal", is_flag=True, help="Show address, fields and body: data of patients."
)

app: Final = LocalizedGroup("outbox", help="Look after queued writes.", no_args_is_help=True)


def _load_settings(config: Path | None) -> Settings:
    settings = load_settings(config)
    if not settings.outbox.enabled:
        exit_with_message(
            Message("outbox.enabled: is false; there is no outbox to look after"), WRONG_USAGE
        )
    return settings


def _run(work: Any) -> Any:
    from gateway.commands.outbox import OutboxCommandError

    try:
        return asyncio.run(work)
    except OutboxCommandError as error:
        exit_with_message(exception_message(error), NO_START)


def _states(names: Sequence[str], *, all_of_them: bool) -> Any:
    from gateway.commands.outbox import states_of
    from gateway.outbox.entry import EntryState

    try:
        return states_of(names, all_of_them=all_of_them)
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
    config: Path | None = None,
    every: bool = False,
    state: tuple[str, ...] = (),
    caller: str | None = None,
    as_json: bool = False,
    lang: str | None = None,
) -> None:
    """List the entries that wait for a person, and how many there are in all."""
    from gateway.commands import outbox as command
    from gateway.outbox.shown import entry_view

    wanted = _states(state, all_of_them=every)
    entries, counts = _run(command.list_entries(_load_settings(config), wanted, caller))
    if as_json:
        click.echo(json.dumps([entry_view(entry) for entry in entries], indent=2))
        return
    for line in command.format_table(entries, counts):
        print_line(line)


@app.command()
@argument("entry", metavar="ID")
@config_option
@reveal_option
@as_json_option
@language_option
def show(
    entry: str,
    config: Path | None = None,
    reveal: bool = False,
    as_json: bool = False,
    lang: str | None = None,
) -> None:
    """Show one entry, what is about a patient masked."""
    from gateway.commands import outbox as command

    settings = _load_settings(config)
    tell = partial(print_line, err=True)
    found = _run(command.show_entry(settings, entry, tell, reveal=reveal))
    if found is None:
        exit_with_message(Message("{entry}: there is no such entry", entry=entry), CHECK_FAILED)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    for line in command.format_entry(found):
        print_line(line)


def _run_action(action: str, ids: Sequence[str], settings: Settings, reason: str = "") -> None:
    from gateway.commands import outbox as command

    if _run(command.apply_action(settings, action, ids, print_line, reason=reason)):
        raise click.exceptions.Exit(CHECK_FAILED)


@app.command()
@ids_option
@option("--failed", is_flag=True, help="All that have failed: none of them was saved.")
@option("--cause", metavar="CAUSE", help="All that have failed of a cause, as listed.")
@config_option
@language_option
def retry(
    ids: tuple[str, ...] = (),
    failed: bool = False,
    cause: str | None = None,
    config: Path | None = None,
    lang: str | None = None,
) -> None:
    """Send entries once more that have failed or are unclear, or at once what waits."""
    from gateway.commands import outbox as command

    settings = _load_settings(config)
    if not (ids or failed or cause is not None):
        exit_with_message(Message("name the entries by their ids"), WRONG_USAGE)
    if failed or cause is not None:
        _run(command.retry_failed(settings, cause, print_line))
    if ids:
        _run_action("retry", ids, settings)


@app.command()
@ids_option
@option("--reason", default="", metavar="TEXT", help="Why, for the audit; nothing about a patient.")
@config_option
@language_option
def drop(
    ids: tuple[str, ...] = (),
    reason: str = "",
    config: Path | None = None,
    lang: str | None = None,
) -> None:
    """Give up entries that are not delivered; what waited for them goes on."""
    settings = _load_settings(config)
    if not ids:
        exit_with_message(Message("name the entries by their ids"), WRONG_USAGE)
    _run_action("drop", ids, settings, reason)


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
    config: Path | None = None,
    state: tuple[str, ...] = (),
    reveal: bool = False,
    lang: str | None = None,
) -> None:
    """Write all that is not delivered as JSON lines, what is about a patient masked."""
    from gateway.commands import outbox as command

    wanted = _states(state, all_of_them=not state)
    path = None if str(file) == "-" else file
    settings = _load_settings(config)
    count = _run(command.export_entries(settings, path, wanted, reveal=reveal, quiet=False))
    print_line(Message("{count} entries exported", count=count), err=True)
