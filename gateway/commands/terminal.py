"""Output of commands, in the language of `--lang`, else of the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Annotated, Final

import typer

from gateway.i18n import LANGUAGES, environment_language, translate_value

_LANGUAGE: Final = ContextVar("language", default="en")


def _on_language_option(asked: str | None) -> str | None:
    """Set the language. An option after the command takes precedence over one before it."""
    if asked is not None and asked not in LANGUAGES:
        raise typer.BadParameter(f"one of {', '.join(LANGUAGES)}")
    if asked is not None:
        set_language(asked)
    return asked


LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="LANGUAGE",
        is_eager=True,
        callback=_on_language_option,
        help="en, ru or uz; default: as LC_ALL, LC_MESSAGES or LANG say, else en.",
    ),
]


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


def current_language() -> str:
    """Return the language of the output."""
    return _LANGUAGE.get()


def translate(text: str) -> str:
    """Return a phrase in the language of the output; any other text unchanged."""
    return str(translate_value(text, current_language()))


def print_line(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Print a line, with `fg` in a colour where the output is a terminal."""
    if fg is None:
        typer.echo(translate(text), err=err)
    else:
        typer.secho(translate(text), err=err, fg=fg)
