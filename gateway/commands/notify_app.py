"""The command `dhp-gateway notify`, as the command line sees it."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from gateway.commands.exit_codes import (
    CHECK_FAILED,
    NO_START,
    WRONG_USAGE,
    ConfigOption,
    fail,
    load_settings,
)


def notify(
    test: Annotated[
        bool, typer.Option("--test", help="Send a test message to every address.")
    ] = False,
    config: ConfigOption = None,
) -> None:
    """Try whether people are told: of `alerts.notify`.

    Exit codes: 0 every address took it, 1 some did not, 2 wrong usage or settings, 3 a secret
    cannot be read, or what sends messages is not installed.
    """
    if not test:
        fail("say what to do: notify --test sends a test message", WRONG_USAGE)
    settings = load_settings(config)
    from gateway.commands import notify as command
    from gateway.process.alerting import NotUnderstood, addresses_of
    from gateway.process.factories import StartError

    try:
        addresses = addresses_of(settings)
    except NotUnderstood as error:
        fail(str(error), WRONG_USAGE)
    except StartError as error:
        fail(str(error), NO_START)
    if not addresses:
        fail("alerts.notify: is empty; nobody is to be told", WRONG_USAGE)
    findings = asyncio.run(command.test(settings, addresses))
    for finding in findings:
        typer.echo(finding.line())
    raise typer.Exit(CHECK_FAILED if any(each.state == "failed" for each in findings) else 0)
