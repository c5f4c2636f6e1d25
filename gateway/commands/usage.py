"""Help texts and usage errors, in the language of the output.

Both come from the command line library, which has them in English only, and are translated with the
catalogues. A text of the library that is not listed here stays in English.
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
from gateway.i18n import Message

_F = TypeVar("_F", bound=Callable[..., Any])

_USAGE: Final = Message("Usage:")
_PARTS: Final = {
    "argument": Message("Arguments"),
    "option": Message("Options"),
    "command": Message("Commands"),
}
# Texts of the library that are translated as a whole.
WORDS: Final = (
    *("[OPTIONS]", "COMMAND [ARGS]...", "Show this message and exit."),
    *("default", "env var", "required"),
)
# Behind the help of an option: [env var: NAME; default: 1; required].
_NOTE: Final = re.compile(r"(?<=[\[ ])(default|env var)(?=: )|(?<=[\[ ])required(?=\])")
_TYPE: Final = re.compile(r" <.*>$")

# Usage errors of the library; a longer sentence precedes one that it begins with.
_USAGE_ERRORS: Final = (
    Message("No such command {name}. Did you mean {near}?"),
    Message("No such command {name}."),
    Message("No such option: {name} (Possible options: {near})"),
    Message("No such option: {name}"),
    Message("Missing command."),
    Message("Missing argument {name}."),
    Message("Got unexpected extra argument(s) ({names})"),
    Message("Option {name} requires an argument."),
    Message("Option {name} does not take a value."),
    Message("Invalid value for {name}: {why}"),
    Message("Input should be a valid integer, unable to parse string as an integer"),
    Message("Input should be a valid number, unable to parse string as a number"),
    Message("Input should be greater than or equal to {least}"),
    Message("Input should be less than or equal to {most}"),
    Message("one of {names}"),
    # Usage errors of `gateway.sandbox`, which does not use the other packages.
    Message("{name}: write sso=… or platform=…"),
    Message("{name}: {side} is named twice"),
    Message("{name}: give a status from 400 to 599, html or reset"),
    Message("{name}: give a duration such as 2s or 500ms"),
    Message("{name}: give whole seconds, at least 1"),
    Message("{name}: give a share from 0 to 1, such as 0.1"),
    Message("{name}: give seconds, from 0"),
)
_PATTERNS: Final = {
    re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>.+?)", re.escape(each))): each.msgid
    for each in _USAGE_ERRORS
}


class LocalizedTyper(typer.Typer):
    """A group of commands with localized help and usage errors."""

    def __init__(self, **options: Any) -> None:
        super().__init__(cls=LocalizedGroup, **options)

    def command(self, name: str | None = None, **options: Any) -> Callable[[_F], _F]:
        """Register a command."""
        return super().command(name, cls=LocalizedCommand, **options)


class _LocalizedHelp:
    """Mixin of the localized help of a command."""

    def format_usage(self: Any, ctx: Any, formatter: Any) -> None:
        """Write the usage line."""
        pieces = [translate(Message(piece)) for piece in self.collect_usage_pieces(ctx)]
        formatter.write_usage(ctx.command_path, " ".join(pieces), prefix=f"{translate(_USAGE)} ")

    def format_help(self: Any, ctx: Any, formatter: Any) -> None:
        """Write the whole help; in English, typer's own with frames."""
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
    """A command with localized help."""


class LocalizedGroup(_LocalizedHelp, TyperGroup):
    """A group of commands with localized help."""


def _rows(command: Any, context: Any, kind: str) -> Iterator[tuple[str, str]]:
    """Yield the name and help of each argument, option or subcommand."""
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
            yield _TYPE.sub("", name), f"{translate(Message(parameter.help or ''))}{notes}".strip()


def _note(found: re.Match[str]) -> str:
    return translate(Message(found[0]))


def paragraphs(text: str) -> list[Message]:
    """Return the paragraphs of a help text, as they are in the catalogues."""
    return [Message(" ".join(each.split())) for each in re.split(r"\n\s*\n", text.strip())]


def run_command_line(commands: typer.Typer, failure: BaseException | None) -> None:
    """Run the command line and exit. In English, typer reports usage errors itself."""
    select_language(sys.argv[1:])
    english = current_language() == "en"
    try:
        sys.exit(commands(prog_name="dhp-gateway", obj=failure, standalone_mode=english))
    except typer.Abort:
        sys.exit(CHECK_FAILED)
    except Exception as error:
        # A usage error is an exception of typer, or of click where typer is built on click: the
        # classes have no common base class.
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
        print_line(Message("Try '{command} --help' for help.", command=path), err=True)
        typer.echo(err=True)
    print_line(Message("Error: {why}", why=told), err=True, fg="red")


def usage_error_phrase(text: str) -> Message | None:
    """Return the library's usage error as a phrase of the catalogues, None for an unknown one."""
    for pattern, sentence in _PATTERNS.items():
        found = pattern.fullmatch(text)
        if found is not None:
            named: dict[str, str] = found.groupdict()
            if "why" in named:
                named["why"] = usage_error_phrase(named["why"]) or named["why"]
            return Message(sentence, **named)
    return None
