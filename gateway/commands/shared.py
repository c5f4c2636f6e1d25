"""Functions that the commands share: loading the settings, and ending with an exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

import click

from gateway.commands.terminal import option, print_line, translate
from gateway.i18n import Message

if TYPE_CHECKING:
    from gateway.config import Settings, SettingsError, SettingsSource

CHECK_FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_START: Final = 3
UNPROVEN: Final = 4

config_option = option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file (YAML); environment variables are laid on top. Default: what "
    "DHP_GATEWAY_CONFIG names, else /etc/dhp-gateway/gateway.yaml, else ./gateway.yaml.",
)
as_json_option = option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def load_settings(config: Path | None, *, as_json: bool = False) -> Settings:
    """Return the settings; print every problem and exit with code 2 if there are any."""
    return load(settings_source(config), as_json=as_json)


def load(source: SettingsSource, *, as_json: bool = False) -> Settings:
    """Return the settings of `source`; print every problem and exit with code 2 if any."""
    from gateway.config import SettingsError

    try:
        return source.load()
    except SettingsError as error:
        exit_with_problems(error, as_json=as_json)


def settings_source(config: Path | None, *, needed: bool = True) -> SettingsSource:
    """Return the source of the settings; print it to stderr unless the operator typed it.

    Where settings are `needed` and there are none, that is reported as a problem instead.
    """
    from gateway.config import SettingsSource

    source = SettingsSource.discover(config, os.environ)  # noqa: TID251 - for the settings
    if config is None and not (needed and source.is_empty):
        print_line(Message("settings: {source}", source=source.description()), err=True)
    return source


def exit_with_problems(error: SettingsError, *, as_json: bool = False) -> NoReturn:
    """Print every problem, to stderr or as JSON to stdout, and exit with code 2."""
    if as_json:
        from gateway.commands import json_report

        click.echo(json_report.settings_report(error.problems))
        raise click.exceptions.Exit(WRONG_USAGE) from None
    for problem in error.problems:
        print_line(problem.line(), err=True)
    raise click.exceptions.Exit(WRONG_USAGE) from None


def exit_with_message(message: Message, code: int) -> NoReturn:
    """Print a message to stderr, which may have several lines, and exit with `code`."""
    for line in translate(message).splitlines():
        click.secho(f"dhp-gateway: {line}", err=True, fg="red")
    raise click.exceptions.Exit(code)
