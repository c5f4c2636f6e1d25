"""The command line of the commands that send requests to SSO and platform."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.commands.shared import (
    CHECK_FAILED,
    NO_START,
    WRONG_USAGE,
    config_option,
    exit_with_message,
    load_settings,
)
from gateway.commands.terminal import argument, language_option, option, print_line
from gateway.commands.usage import LocalizedCommand
from gateway.i18n import Message, exception_message

if TYPE_CHECKING:
    from gateway.config import Settings


@click.command(cls=LocalizedCommand)
@option(
    "--credential",
    default="default",
    show_default=True,
    metavar="NAME",
    help="Which entry of `credentials` to use.",
)
@config_option
@option("--show", is_flag=True, help="Print the token itself, too.")
@language_option
def token(
    credential: str = "default",
    config: Path | None = None,
    show: bool = False,
    lang: str | None = None,
) -> None:
    """Ask the SSO for a token and print its type, lifetime, expiry and scope."""
    settings = load_settings(config)
    _require(settings, credential)
    from gateway.commands import token as command
    from gateway.oauth.token_response import TokenRequestError
    from gateway.process.factories import StartError

    try:
        for line in command.format_assertion(settings, credential):
            print_line(line)
        response = asyncio.run(command.request_token(settings, credential))
    except StartError as error:
        exit_with_message(exception_message(error), NO_START)
    except TokenRequestError as error:
        why = command.token_failure_text(error, settings, credential)
        exit_with_message(Message("no token: {why}", why=why), CHECK_FAILED)
    for line in command.format_token(response, show=show):
        print_line(line)


@click.command(cls=LocalizedCommand)
@argument(
    "wanted", nargs=-1, metavar="[TYPE[?param]…]", help="Default: all that the platform declares."
)
@config_option
@option("--credential", default="", metavar="NAME", help="Which entry of `credentials` to use.")
@option(
    "--rate",
    type=click.FloatRange(min=0.01, max=100),
    default=2.0,
    show_default=True,
    metavar="NUMBER",
    help="Requests a second at most.",
)
@language_option
def probe_search(
    wanted: tuple[str, ...] = (),
    config: Path | None = None,
    credential: str = "",
    rate: float = 2.0,
    lang: str | None = None,
) -> None:
    """Find the search parameters that filter nothing, and print them for `fhir.unfiltered`.

    Shows no patient's data and keeps nothing. Exit codes: 0 all were asked, 1 some or all could not
    be asked, or it was interrupted, 2 wrong usage or settings, 3 a secret cannot be read.
    """
    settings = load_settings(config)
    if credential:
        _require(settings, credential)
    from gateway.commands import probe_search as command
    from gateway.commands import token as token_command
    from gateway.oauth.token_response import TokenRequestError
    from gateway.process.factories import StartError

    try:
        targets = command.parse_targets(wanted or ())
    except ValueError as error:
        exit_with_message(exception_message(error), WRONG_USAGE)
    try:
        report = command.probe_parameters(settings, targets, credential=credential, rate=rate)
    except StartError as error:
        exit_with_message(exception_message(error), NO_START)
    except TokenRequestError as error:
        why = token_command.token_failure_text(
            error, settings, command.select_credential(settings, credential)
        )
        exit_with_message(Message("no token: {why}", why=why), CHECK_FAILED)
    except command.ProbeUnavailableError as error:
        exit_with_message(exception_message(error), CHECK_FAILED)
    except KeyboardInterrupt:
        exit_with_message(Message("interrupted; nothing is kept"), CHECK_FAILED)
    for line in report.lines():
        click.echo(line)
    for line in report.notes(partial=bool(targets)):
        print_line(line, err=True)
    raise click.exceptions.Exit(CHECK_FAILED if report.failed else 0)


def _require(settings: Settings, credential: str) -> None:
    if credential not in settings.credentials:
        known = ", ".join(settings.credentials)
        why = Message(
            "there is no credential {credential!r}; known: {known}",
            credential=credential,
            known=known,
        )
        exit_with_message(why, WRONG_USAGE)
