"""Help and wrong usage are understood without English."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import click
import pytest

from gateway.cli.main import cli
from tests.doubles.command import Result, dhp
from tests.test_i18n import NAMES, OTHERS, SHARED

# Of options and commands, in the order in which help lists them.
OPTION = re.compile(r"^  (--[\w-]+|[a-z-]+(?=  ))", re.MULTILINE)
LATIN = re.compile(r"[A-Za-z‘’]{2,}")
# Places of values and a value, names of options and commands, and what stands in quotation marks.
NAMED = re.compile(
    r"\[\?param\]|(?<=: )default(?=\])|\b[A-Z]{2,}\w*\b|--[\w-]+|`[^`]*`|'[^']*'"
    r"|[\w-]+(?:[._/][\w-]+)+|~?/[\w./-]+"
)


def commands() -> Iterator[tuple[str, ...]]:
    """Each command, and those that have others below them."""
    yield ()
    context = click.Context(cli)
    for name in cli.list_commands(context):
        yield (name,)
        command = cli.get_command(context, name)
        yield from ((name, below) for below in getattr(command, "commands", ()))


def words(text: str) -> set[str]:
    """Words in Latin letters that are no names."""
    return {each.lower() for each in LATIN.findall(NAMED.sub(" ", text))}


TYPED = {word for command in commands() for word in "-".join(command).split("-")}
KEPT = {name.lower() for name in NAMES} | SHARED | TYPED


async def spoken(*arguments: str, language: str) -> Result:
    """How a command ends in a terminal of this language."""
    plain = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": f"{language}_UZ.UTF-8"}
    return await dhp(*arguments, environ=plain)


@pytest.mark.parametrize("command", list(commands()), ids="-".join)
async def test_help_has_no_english_word(command: Sequence[str]) -> None:
    """Of every command; with the same options and arguments in all languages."""
    english = await spoken(*command, "--help", language="en")
    assert english.out.startswith("Usage: dhp-gateway")
    for language in OTHERS:
        result = await spoken(*command, "--help", language=language)
        assert (result.code, result.err) == (0, "")
        assert words(result.out) & words(english.out) <= KEPT
        assert OPTION.findall(result.out) == OPTION.findall(english.out)


MISTAKES = {
    ("chek",): "Нет такой команды: 'chek'. Возможно, имелось в виду 'check', 'schema'?",
    ("xyz",): "Нет такой команды: 'xyz'.",
    ("--lang", "ru"): "Не указана команда.",
    (
        "run",
        "--confg",
        "x",
    ): "Нет такого параметра: '--confg'. Возможно, имелось в виду '--config', '--lang'?",
    ("run", "--wrkrs"): "Нет такого параметра: '--wrkrs'.",
    ("run", "x", "y"): "Лишнее в строке команды: x y",
    ("run", "--config"): "После '--config' нужно значение.",
    ("--version=1",): "Значение для '--version' не задаётся.",
    ("outbox", "show"): "Не указано 'ID'.",
    ("check", "--lang", "de"): "Недопустимое значение для '--lang': одно из en, ru, uz",
    ("sandbox", "--port", "x"): "Недопустимое значение для '--port': нужно число, а не 'x'.",
    (
        "sandbox",
        "--port",
        "99999",
    ): "Недопустимое значение для '--port': 99999 не в пределах 0<=x<=65535.",
    (
        "probe-search",
        "--rate",
        "0",
    ): "Недопустимое значение для '--rate': 0.0 не в пределах 0.01<=x<=100.",
    ("probe-search", "--rate", "x"): "Недопустимое значение для '--rate': нужно число, а не 'x'.",
}


@pytest.mark.parametrize("arguments", MISTAKES, ids="-".join)
async def test_what_was_typed_wrongly_is_told_in_the_language_of_the_terminal(
    arguments: Sequence[str],
) -> None:
    """What is wrong, what was meant, how it is typed, and where help is; code 2 as ever."""
    english = await spoken(*arguments, language="en")
    assert (english.code, english.out) == (2, "")
    for language in OTHERS:
        result = await spoken(*arguments, language=language)
        assert (result.code, result.out) == (2, "")
        lines = [each.err.splitlines() for each in (english, result)]
        assert len(lines[0]) == len(lines[1])
        assert len(lines[0]) == 1 or ("dhp-gateway" in lines[1][0] and "--help" in lines[1][1])
        assert words(result.err) & words(english.err) <= KEPT
    result = await spoken(*arguments, language="ru")
    assert result.err.splitlines()[-1] == f"Ошибка: {MISTAKES[arguments]}"


@pytest.mark.parametrize("arguments", [(), ("audit",), ("outbox",)])
async def test_a_command_of_commands_alone_gives_its_help(arguments: Sequence[str]) -> None:
    """On stderr, with code 2, the same as --help."""
    result = await spoken(*arguments, language="uz")
    asked = await spoken(*arguments, "--help", language="uz")
    assert result == Result(2, "", asked.out)


@pytest.mark.parametrize(
    "arguments", [("--lang", "uz", "chek"), ("run", "--confg", "x", "--lang=uz"), ("--lang", "uz")]
)
async def test_the_language_that_is_asked_for_counts_also_in_a_line_with_mistakes(
    arguments: Sequence[str],
) -> None:
    """Wherever --lang stands."""
    assert "Xato: " in (await spoken(*arguments, language="ru")).err


async def test_help_is_in_the_language_that_is_asked_for() -> None:
    """Also where --lang comes behind --help."""
    before = await spoken("run", "--lang", "ru", "--help", language="uz")
    behind = await spoken("run", "--help", "--lang", "ru", language="uz")
    assert before == behind
    assert "Запустить шлюз." in before.out
