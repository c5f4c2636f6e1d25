"""What commands say, in the language of `--lang`, else of the environment."""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import Annotated, Final

import typer

from gateway.phrases import LANGUAGES, of_environment, translated

_LANGUAGE: Final = ContextVar("language", default="en")


def _choose(context: typer.Context, asked: str | None) -> str | None:
    """What stands behind a command counts more than what stands in front of it."""
    if asked is None and context.parent is None:
        speak(of_environment(os.environ))  # noqa: TID251 - as the terminal's
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


def speak(language: str) -> None:
    """From now on in this language."""
    _LANGUAGE.set(language)


def language() -> str:
    """The language that is spoken."""
    return _LANGUAGE.get()


def spoken(text: str) -> str:
    """A phrase in the language that is spoken; any other text as it is."""
    return str(translated(text, language()))


def say(text: str, *, err: bool = False, fg: str | None = None) -> None:
    """Print a line, to people's eyes in a colour."""
    if fg is None:
        typer.echo(spoken(text), err=err)
    else:
        typer.secho(spoken(text), err=err, fg=fg)
