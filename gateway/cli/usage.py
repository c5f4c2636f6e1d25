"""Help texts, usage errors and start errors, in the language of the output.

click requests the translations of its sentences from gettext, for which `terminal` binds the
catalogue `commands`. Help texts and metavars are the gateway's own, and are translated here.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, Final

import click

from gateway.cli.terminal import NO_START, current_language, exit_with_message, translate
from gateway.errors import StartError
from gateway.i18n import Message, exception_message

# Metavars of click, which it does not pass through gettext.
WORDS: Final = ("[OPTIONS]", "COMMAND [ARGS]...")


class _LocalizedHelp:
    """Mixin of the localized help of a command."""

    def collect_usage_pieces(self: Any, ctx: click.Context) -> list[str]:
        pieces = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [translate(Message(piece)) for piece in pieces]

    def format_help_text(self: Any, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(map(translate, paragraphs(self.help))))

    def get_short_help_str(self: Any, limit: int = 45) -> str:
        """Return the first paragraph for the list of commands; English is shortened to `limit`."""
        if current_language() == "en":
            return str(super().get_short_help_str(limit))  # type: ignore[misc]
        return translate(paragraphs(self.help)[0])


class LocalizedCommand(_LocalizedHelp, click.Command):
    """A command with localized help. It exits with code 3 where it raises `StartError`."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command and return its result."""
        try:
            return super().invoke(ctx)
        except StartError as error:
            exit_with_message(exception_message(error), NO_START)


class LocalizedGroup(_LocalizedHelp, click.Group):
    """A group of commands with localized help."""

    command_class = LocalizedCommand

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._names: list[str] = []
        self._locations: dict[str, str] = {}  # of commands not imported yet

    def add_command(self, cmd: click.Command, name: str | None = None) -> None:
        """Add a command, under the name that was given to it by default."""
        super().add_command(cmd, name)
        self._names.append(name or cmd.name or "")

    def add_lazy_command(self, name: str, location: str) -> None:
        """Add the command at `module:attribute`, imported when the command is run or listed."""
        self._names.append(name)
        self._locations[name] = location

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, None if there is none of that name."""
        module, _, attribute = self._locations.pop(cmd_name, "").partition(":")
        if module:
            super().add_command(getattr(import_module(module), attribute), cmd_name)
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of their definition."""
        return self._names


def paragraphs(text: str) -> list[Message]:
    """Return the paragraphs of a help text, as they are in the catalogues."""
    return [Message(" ".join(each.split())) for each in re.split(r"\n\s*\n", text.strip())]
