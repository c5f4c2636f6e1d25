"""Asks questions on the terminal, again after an invalid answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import click

from gateway.commands.terminal import print_line, translate
from gateway.i18n import Message

_T = TypeVar("_T")


class InvalidAnswerError(Exception):
    """An answer cannot be used. The text says why."""

    def __init__(self, why: Message) -> None:
        super().__init__(why)
        self.problem = why


def prompt(
    question: str, read: Callable[[str], _T], default: str | None = None, *, hidden: bool = False
) -> _T:
    """Ask until `read` accepts the answer. Return its result.

    `read` raises `InvalidAnswerError` for an invalid answer.
    """
    while True:
        text = click.prompt(
            translate(question), default=default, hide_input=hidden, value_proc=str
        ).strip()
        try:
            return read(text)
        except InvalidAnswerError as error:
            print_line(error.problem, err=True, fg="red")


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
