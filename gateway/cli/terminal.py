"""What all commands share: output, questions, common options, loading the settings, exit codes.

Output is in the language of `--lang`, else of the environment. A question is asked again after an
invalid answer. The output of `check --json` and `doctor --json` is one document (see
docs/monitoring.md): its codes and keys are stable, for programs; its messages and hints are
translated, for operators.
"""

from __future__ import annotations

import gettext
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

import click

from gateway.i18n import (
    LANGUAGES,
    LOCALE,
    Message,
    environment_language,
    exception_message,
    translate_value,
)

if TYPE_CHECKING:
    from gateway.app.preflight import Finding
    from gateway.config.loader import SettingsError, SettingsSource
    from gateway.config.problems import Problem
    from gateway.config.settings import Settings

_LANGUAGE: Final = ContextVar("language", default="en")


# click requests the translations of its sentences from gettext, in the default domain.
gettext.bindtextdomain("commands", str(LOCALE))
gettext.textdomain("commands")


class _LocalizedHelp:
    """Mixin of a parameter whose help is in the language of the output."""

    def get_help_record(self: Any, ctx: click.Context) -> Any:
        record = super().get_help_record(ctx)  # type: ignore[misc]
        if record is None or not self.help:
            return record
        return record[0], record[1].replace(self.help, translate(Message(self.help)), 1)


class _Option(_LocalizedHelp, click.Option):
    """An option with localized help."""


class _Argument(_LocalizedHelp, click.Argument):
    """An argument with localized help."""


option = partial(click.option, cls=_Option)
version_option = partial(click.version_option, cls=_Option)
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
    help="en, ru or uz; default: as LC_ALL, LC_MESSAGES or LANG say, otherwise en.",
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


ReportEntry = dict[str, str]


def settings_report(problems: Iterable[Problem], warnings: Iterable[Problem] = ()) -> str:
    """Return the document of the problems and warnings of settings."""
    entries = [_setting("error", problem) for problem in problems]
    return _document(entries + [_setting("warning", warning) for warning in warnings])


def doctor_report(findings: Iterable[Finding]) -> str:
    """Return the document of the doctor's check results."""
    return _document([_finding(finding) for finding in findings])


def _document(entries: list[ReportEntry]) -> str:
    ok = all(entry["level"] != "error" for entry in entries)
    return json.dumps({"ok": ok, "findings": entries}, indent=2, ensure_ascii=False)


def _setting(level: str, problem: Problem) -> ReportEntry:
    about = {"level": level, "code": problem.code, "key": problem.key}
    texts = {"message": problem.message, "hint": problem.hint, "source": problem.source}
    return about | {name: str(text) for name, text in texts.items()}


def _finding(finding: Finding) -> ReportEntry:
    level = "error" if finding.level == "failed" else finding.level
    about = {"level": level, "code": finding.check.code, "key": finding.check.key}
    hint = f"{finding.hint:capital}"
    return about | {"message": str(finding.detail), "hint": hint, "source": ""}


_T = TypeVar("_T")


class InvalidAnswerError(Exception):
    """An answer cannot be used. The message says why."""


def prompt(
    question: str, read: Callable[[str], _T], default: str | None = None, *, hidden: bool = False
) -> _T:
    """Ask until `read` accepts the answer. Return its result.

    click's prompts work on every terminal, also on a serial one: they do not draw the screen.
    `read` raises `InvalidAnswerError` for an invalid answer.
    """
    while True:
        text = click.prompt(
            translate(question), default=default, hide_input=hidden, value_proc=str
        ).strip()
        try:
            return read(text)
        except InvalidAnswerError as error:
            print_line(exception_message(error), err=True, fg="red")


def prompt_choice(question: Message, choices: Mapping[str, Message], default: str) -> str:
    """Ask for one of the choices, by number or by name, and return its name."""
    print_line(question)
    names = list(choices)
    for number, name in enumerate(names, 1):
        print_line(Message("  {number}  {meaning}", number=number, meaning=choices[name]))

    def read(text: str) -> str:
        if text in names:
            return text
        if text.isascii() and text.isdigit() and 0 < int(text) <= len(names):
            return names[int(text) - 1]
        raise InvalidAnswerError(Message("a number from 1 to {most}", most=len(names)))

    return prompt(Message("number"), read, str(names.index(default) + 1))


CHECK_FAILED: Final = 1
WRONG_USAGE: Final = 2
NO_START: Final = 3

config_option = option(
    "--config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Settings file (YAML); environment variables override it. Default: what "
    "DHP_GATEWAY_CONFIG names, otherwise /etc/dhp-gateway/gateway.yaml, otherwise ./gateway.yaml.",
)
as_json_option = option("--json", "as_json", is_flag=True, help="JSON, for programs.")


def load_settings(config: Path | None) -> Settings:
    """Return the settings; print every problem and exit with code 2 if there are any."""
    return load(settings_source(config))


def load(source: SettingsSource, *, as_json: bool = False) -> Settings:
    """Return the settings of `source`; print every problem and exit with code 2 if any."""
    from gateway.config.loader import SettingsError

    try:
        return source.load()
    except SettingsError as error:
        exit_with_problems(error, as_json=as_json)


def settings_source(config: Path | None, *, needed: bool = True) -> SettingsSource:
    """Return the source of the settings; print it to stderr unless the operator typed it.

    Where settings are `needed` and there are none, that is reported as a problem instead.
    """
    from gateway.config.loader import SettingsSource

    source = SettingsSource.discover(config, os.environ)  # noqa: TID251 - for the settings
    if config is None and not (needed and source.is_empty):
        print_line(Message("settings: {source}", source=source.description()), err=True)
    return source


def exit_with_problems(error: SettingsError, *, as_json: bool = False) -> NoReturn:
    """Print every problem, to stderr or as JSON to stdout, and exit with code 2."""
    if as_json:
        click.echo(settings_report(error.problems))
        raise click.exceptions.Exit(WRONG_USAGE) from None
    for problem in error.problems:
        print_line(problem.line(), err=True)
    raise click.exceptions.Exit(WRONG_USAGE) from None


def exit_with_message(message: Message, code: int) -> NoReturn:
    """Print a message to stderr, which may have several lines, and exit with `code`."""
    for line in translate(message).splitlines():
        click.secho(f"dhp-gateway: {line}", err=True, fg="red")
    raise click.exceptions.Exit(code)
