"""Help, and what is said of wrong usage, in the language that is spoken.

Both are of the command line's library, which has them in English only, and go through the
catalogues here. What it says in words that are not known here stays as it says it.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from gateway.commands.shared import CHECK_FAILED, WRONG_USAGE
from gateway.commands.terminal import current_language, print_line, select_language, translate
from gateway.phrases import Phrase

_F = TypeVar("_F", bound=Callable[..., Any])

_USAGE: Final = Phrase("Usage:")
_PARTS: Final = {
    "argument": Phrase("Arguments"),
    "option": Phrase("Options"),
    "command": Phrase("Commands"),
}
# Words of its own, which are looked up as they come.
WORDS: Final = (
    *("[OPTIONS]", "COMMAND [ARGS]...", "Show this message and exit."),
    *("default", "env var", "required"),
)
# Behind the help of an option: [env var: NAME; default: 1; required].
_NOTE: Final = re.compile(r"(?<=[\[ ])(default|env var)(?=: )|(?<=[\[ ])required(?=\])")
_TYPE: Final = re.compile(r" <.*>$")

# What is told of mistakes, longer sentences before those that they begin with.
_USAGE_ERRORS: Final = (
    Phrase("No such command {name}. Did you mean {near}?"),
    Phrase("No such command {name}."),
    Phrase("No such option: {name} (Possible options: {near})"),
    Phrase("No such option: {name}"),
    Phrase("Missing command."),
    Phrase("Missing argument {name}."),
    Phrase("Got unexpected extra argument(s) ({names})"),
    Phrase("Option {name} requires an argument."),
    Phrase("Option {name} does not take a value."),
    Phrase("Invalid value for {name}: {why}"),
    Phrase("Input should be a valid integer, unable to parse string as an integer"),
    Phrase("Input should be a valid number, unable to parse string as a number"),
    Phrase("Input should be greater than or equal to {least}"),
    Phrase("Input should be less than or equal to {most}"),
    Phrase("one of {names}"),
    # Of the sandbox, which uses nothing of the rest.
    Phrase("{name}: write sso=… or platform=…"),
    Phrase("{name}: {side} is named twice"),
    Phrase("{name}: give a status from 400 to 599, html or reset"),
    Phrase("{name}: give a duration such as 2s or 500ms"),
    Phrase("{name}: give whole seconds, at least 1"),
    Phrase("{name}: give a share from 0 to 1, such as 0.1"),
    Phrase("{name}: give seconds, from 0"),
)
_PATTERNS: Final = {
    re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(each))): each.sentence
    for each in _USAGE_ERRORS
}


class LocalizedTyper(typer.Typer):
    """A group of commands, all of which say how they are used."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=LocalizedGroup, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[_F], _F]:
        """Registers a command."""
        return super().command(name, cls=LocalizedCommand, **options)


class _LocalizedHelp:
    """What a command says of itself."""

    def format_usage(self: Any, ctx: Any, formatter: Any) -> None:
        """Its line of usage."""
        pieces = [translate(Phrase(piece)) for piece in self.collect_usage_pieces(ctx)]
        formatter.write_usage(ctx.command_path, " ".join(pieces), prefix=f"{translate(_USAGE)} ")

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        """All of its help; typer's own, with frames, where no word changes."""
        if current_language() == "en":
            super().format_help(ctx, formatter)  # type: ignore[misc]
            return
        self.format_usage(ctx, formatter)
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(map(translate, paragraphs(self.help))))
        for kind, heading in _PARTS.items():
            rows = [*_rows(self, ctx, kind)]
            if rows:
                with formatter.section(translate(heading)):
                    formatter.write_dl(rows)


class LocalizedCommand(_LocalizedHelp, TyperCommand):
    """One that does something."""


class LocalizedGroup(_LocalizedHelp, TyperGroup):
    """One with others below it."""


def _rows(command: Any, context: Any, kind: str) -> Iterator[tuple[str, str]]:
    """Name and meaning of each argument, option or command below this one."""
    if kind == "command":
        below = getattr(command, "commands", {})
        shown = {name: each for name, each in below.items() if not each.hidden}
        yield from ((name, translate(paragraphs(each.help)[0])) for name, each in shown.items())
        return
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and parameter.param_type_name == kind:
            name, told = record
            notes = _NOTE.sub(_note, told.removeprefix(parameter.help or ""))
            yield _TYPE.sub("", name), f"{translate(Phrase(parameter.help or ''))}{notes}".strip()


def _note(found: re.Match[str]) -> str:
    return translate(Phrase(found[0]))


def paragraphs(text: str) -> list[Phrase]:
    """A help text's, as the catalogues have them."""
    return [Phrase(" ".join(each.split())) for each in re.split(r"\n\s*\n", text.strip())]


def run_command_line(commands: typer.Typer, failure: BaseException | None) -> None:
    """Do what was typed; the process ends with it. In English typer tells mistakes itself."""
    select_language(sys.argv[1:])
    english = current_language() == "en"
    try:
        sys.exit(commands(prog_name="dhp-gateway", obj=failure, standalone_mode=english))
    except typer.Abort:
        sys.exit(CHECK_FAILED)
    except Exception as error:
        # A mistake of usage is typer's, or click's where typer is built on that: the classes
        # have no name in common.
        if not hasattr(error, "format_message"):
            raise
        _print_usage_error(error)
        sys.exit(WRONG_USAGE)


def _print_usage_error(mistake: Any) -> None:
    told = usage_error_phrase(mistake.format_message())
    if told is None:
        mistake.show()
        return
    if mistake.ctx is not None:
        path = mistake.ctx.command_path
        typer.echo(mistake.ctx.get_usage(), err=True)
        print_line(Phrase("Try '{command} --help' for help.", command=path), err=True)
        typer.echo(err=True)
    print_line(Phrase("Error: {why}", why=told), err=True, fg="red")


def usage_error_phrase(text: str) -> Phrase | None:
    """What others say of a mistake, as a sentence of the catalogues."""
    for pattern, sentence in _PATTERNS.items():
        found = pattern.fullmatch(text)
        if found is not None:
            named: dict[str, str] = found.groupdict()
            if "why" in named:
                named["why"] = usage_error_phrase(named["why"]) or named["why"]
            return Phrase(sentence, **named)
    return None
