"""What commands say, in the language of `--lang`, else of the environment."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Annotated, Final

import typer

from gateway.phrases import LANGUAGES, environment_language, translate_value

_LANGUAGE: Final = ContextVar("language", default="en")


def _on_language_option(asked: str | None) -> str | None:
    """What stands behind a command counts more than what stands in front of it."""
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
    """Speak as a line asks for, which may be full of mistakes, else as the environment does."""
    words = [word for each in arguments for word in _split_option(each)]
    asked = [word for name, word in pairwise(words) if name == "--lang" and word in LANGUAGES]
    set_language(asked[-1] if asked else environment_language(os.environ))  # noqa: TID251 - as the terminal's


def _split_option(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--lang=") else [argument]


def set_language(language: str) -> None:
    """From now on in this language."""
    _LANGUAGE.set(language)


def current_language() -> str:
    """The language that is spoken."""
    return _LANGUAGE.get()


def translate(text: str) -> str:
    """A phrase in the language that is spoken; any other text as it is."""
    return str(translate_value(text, current_language()))


def print_line(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Print a line, to people's eyes in a colour."""
    if fg is None:
        typer.echo(translate(text), err=err)
    else:
        typer.secho(translate(text), err=err, fg=fg)
