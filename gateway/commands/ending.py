"""What the commands share: where the settings come from, and how a command ends."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

if TYPE_CHECKING:
    from gateway.config import Settings, SettingsError

CHECK_FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_START: Final = 3

ConfigOption = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        envvar="DHP_GATEWAY_CONFIG",
        help="Settings file (YAML); environment variables are laid on top.",
    ),
]


def load_settings(config: Path | None) -> Settings:
    """The settings; prints every problem to stderr and ends with code 2 when there are any."""
    from gateway.config import SettingsError, load

    try:
        return load(config, os.environ)  # noqa: TID251 - as the command line's
    except SettingsError as error:
        tell(error)


def tell(error: SettingsError) -> NoReturn:
    """Print every problem to stderr and end with code 2."""
    for problem in error.problems:
        typer.echo(str(problem), err=True)
    raise typer.Exit(WRONG_USAGE) from None


def fail(message: str, code: int) -> NoReturn:
    """End with a sentence and an exit code."""
    typer.secho(f"dhp-gateway: {message}", err=True, fg="red")
    raise typer.Exit(code)
