"""Help, and what is said of wrong usage, in the language that is spoken.

click has sentences of its own, for which it asks gettext: `terminal` points it at the catalogue of
commands. Help texts and metavars are ours, and are translated here.
"""

from __future__ import annotations

import re
import sys
from typing import Any, Final

import click

from gateway.commands.terminal import current_language, select_language, translate
from gateway.i18n import Message

# Metavars of click's own, which are looked up as they come.
WORDS: Final = ("[OPTIONS]", "COMMAND [ARGS]...")


class _LocalizedHelp:
    """What a command says of itself."""

    def collect_usage_pieces(self: Any, ctx: click.Context) -> list[str]:
        """The parts of its line of usage."""
        pieces = super().collect_usage_pieces(ctx)  # type: ignore[misc]
        return [translate(Message(piece)) for piece in pieces]

    def format_help_text(self: Any, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What it does."""
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n\n".join(map(translate, paragraphs(self.help))))

    def get_short_help_str(self: Any, limit: int = 45) -> str:
        """What it does, in the list of commands; shortened in English only."""
        if current_language() == "en":
            return str(super().get_short_help_str(limit))  # type: ignore[misc]
        return translate(paragraphs(self.help)[0])


class LocalizedCommand(_LocalizedHelp, click.Command):
    """One that does something."""


class LocalizedGroup(_LocalizedHelp, click.Group):
    """One with others below it."""

    command_class = LocalizedCommand

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Their names, in the order of the code: what is needed first comes first."""
        return list(self.commands)


def paragraphs(text: str) -> list[Message]:
    """A help text's, as the catalogues have them."""
    return [Message(" ".join(each.split())) for each in re.split(r"\n\s*\n", text.strip())]


def run_command_line(commands: click.Group, failure: BaseException | None) -> None:
    """Do what was typed; the process ends with it."""
    select_language(sys.argv[1:])
    commands(prog_name="dhp-gateway", obj=failure)
