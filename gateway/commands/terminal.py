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


def _choose(asked: str | None) -> str | None:
    """What stands behind a command counts more than what stands in front of it."""
    if asked is not None and asked not in LANGUAGES:
        raise typer.BadParameter(f"one of {', '.join(LANGUAGES)}")
    if asked is not None:
        speak(asked)
    return asked


LanguageOption = Annotated[
    str | None,
    typer.Option(
        "--lang",
        metavar="LANGUAGE",
        is_eager=True,
        callback=_choose,
        help="en, ru or uz; default: as LC_ALL, LC_MESSAGES or LANG say, else en.",
    ),
]


def settle(arguments: Sequence[str]) -> None:
    """Speak as a line asks for, which may be full of mistakes, else as the environment does."""
    words = [word for each in arguments for word in _parted(each)]
    asked = [word for name, word in pairwise(words) if name == "--lang" and word in LANGUAGES]
    speak(asked[-1] if asked else environment_language(os.environ))  # noqa: TID251 - as the terminal's


def _parted(argument: str) -> list[str]:
    return argument.split("=", 1) if argument.startswith("--lang=") else [argument]


def speak(language: str) -> None:
    """From now on in this language."""
    _LANGUAGE.set(language)


def language() -> str:
    """The language that is spoken."""
    return _LANGUAGE.get()


def spoken(text: str) -> str:
    """A phrase in the language that is spoken; any other text as it is."""
    return str(translate_value(text, language()))


def say(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Print a line, to people's eyes in a colour."""
    if fg is None:
        typer.echo(spoken(text), err=err)
    else:
        typer.secho(spoken(text), err=err, fg=fg)
