"""Output of commands, in the language of `--lang`, else of the environment."""

from __future__ import annotations

import gettext
import os
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from typing import Final

import click

from gateway.i18n import LANGUAGES, LOCALE, Message, environment_language, translate_value

_LANGUAGE: Final = ContextVar("language", default="en")
# click requests the translations of its sentences from gettext, in the default domain.
gettext.bindtextdomain("commands", str(LOCALE))
gettext.textdomain("commands")


class _Option(click.Option):
    """An option whose help is in the language of the output."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the names of the option and its translated help, None if it is hidden."""
        record = super().get_help_record(ctx)
        return None if record is None else (record[0], _translated(record[1], self.help))


class _Argument(click.Argument):
    """An argument whose help is in the language of the output."""

    def get_help_record(self, ctx: click.Context) -> tuple[str, str]:
        """Return the name of the argument and its translated help."""
        name, told = super().get_help_record(ctx)
        return name, _translated(told, self.help)


def _translated(told: str, text: str | None) -> str:
    return told.replace(text, translate(Message(text)), 1) if text else told


option = partial(click.option, cls=_Option)
argument = partial(click.argument, cls=_Argument)


def _on_language_option(
    context: click.Context, parameter: click.Parameter, asked: str | None
) -> str | None:
    """Set the language. An option after the command takes precedence over one before it."""
    if asked is not None and asked not in LANGUAGES:
        raise click.BadParameter(translate(Message("one of {names}", names=", ".join(LANGUAGES))))
    if asked is not None:
        set_language(asked)
    return asked


language_option = option(
    "--lang",
    metavar="LANGUAGE",
    is_eager=True,
    callback=_on_language_option,
    help="en, ru or uz; default: as LC_ALL, LC_MESSAGES or LANG say, else en.",
)


def select_language(arguments: Sequence[str]) -> None:
    """Set the language of `--lang` in the arguments, else of the environment.

    The arguments may be invalid otherwise.
    """
    words = [word for each in arguments for word in _split_option(each)]
    asked = [word for name, word in pairwise(words) if name == "--lang" and word in LANGUAGES]
    set_language(asked[-1] if asked else environment_language(os.environ))  # noqa: TID251 - for the language


def _split_option(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--lang=") else [argument]


def set_language(language: str) -> None:
    """Set the language of all further output."""
    _LANGUAGE.set(language)
    os.environ["LANGUAGE"] = language  # noqa: TID251 - where gettext looks, each time


def current_language() -> str:
    """Return the language of the output."""
    return _LANGUAGE.get()


def translate(text: str) -> str:
    """Return a message in the language of the output; any other text unchanged."""
    return str(translate_value(text, current_language()))


def print_line(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Print a line, with `fg` in a colour where the output is a terminal."""
    if fg is None:
        click.echo(translate(text), err=err)
    else:
        click.secho(translate(text), err=err, fg=fg)
