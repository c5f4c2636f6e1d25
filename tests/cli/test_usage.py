"""Help and usage errors are translated."""

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
    yield ()
    context = click.Context(cli)
    for name in cli.list_commands(context):
        yield (name,)
        command = cli.get_command(context, name)
        yield from ((name, below) for below in getattr(command, "commands", ()))


def words(text: str) -> set[str]:
    return {each.lower() for each in LATIN.findall(NAMED.sub(" ", text))}


TYPED = {word for command in commands() for word in "-".join(command).split("-")}
KEPT = {name.lower() for name in NAMES} | SHARED | TYPED


async def run_in(*arguments: str, language: str) -> Result:
    plain = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": f"{language}_UZ.UTF-8"}
    return await dhp(*arguments, environ=plain)


@pytest.mark.parametrize("command", list(commands()), ids="-".join)
async def test_help_is_translated(command: Sequence[str]) -> None:
    english = await run_in(*command, "--help", language="en")
    assert english.out.startswith("Usage: dhp-gateway")
    for language in OTHERS:
        result = await run_in(*command, "--help", language=language)
        assert (result.code, result.err) == (0, "")
        assert words(result.out) & words(english.out) <= KEPT
        assert OPTION.findall(result.out) == OPTION.findall(english.out)


MISTAKES = [
    *(("chek",), ("xyz",), ("--lang", "ru"), ("run", "--confg", "x"), ("run", "--wrkrs")),
    *(("run", "x", "y"), ("run", "--config"), ("--version=1",), ("outbox", "show")),
    *(("check", "--lang", "de"), ("sandbox", "--port", "x"), ("sandbox", "--port", "99999")),
    *(("probe-search", "--rate", "0"), ("probe-search", "--rate", "x")),
]


@pytest.mark.parametrize("arguments", MISTAKES, ids="-".join)
async def test_usage_errors_are_translated(arguments: Sequence[str]) -> None:
    english = await run_in(*arguments, language="en")
    assert (english.code, english.out) == (2, "")
    for language in OTHERS:
        result = await run_in(*arguments, language=language)
        assert (result.code, result.out) == (2, "")
        lines = [each.err.splitlines() for each in (english, result)]
        assert len(lines[0]) == len(lines[1])
        assert len(lines[0]) == 1 or ("dhp-gateway" in lines[1][0] and "--help" in lines[1][1])
        assert words(result.err) & words(english.err) <= KEPT


@pytest.mark.parametrize("arguments", [(), ("audit",), ("outbox",)])
async def test_a_group_without_a_command_prints_its_help(arguments: Sequence[str]) -> None:
    result = await run_in(*arguments, language="uz")
    asked = await run_in(*arguments, "--help", language="uz")
    assert result == Result(2, "", asked.out)


@pytest.mark.parametrize(
    "arguments", [("--lang", "uz", "chek"), ("run", "--confg", "x", "--lang=uz"), ("--lang", "uz")]
)
async def test_lang_is_recognised_in_a_line_with_usage_errors(arguments: Sequence[str]) -> None:
    assert "Xato: " in (await run_in(*arguments, language="ru")).err


@pytest.mark.parametrize(
    ("before", "behind", "lang", "word"),
    [
        ((), (), "", "no settings file"),
        ((), (), "ru_RU.UTF-8", "нет файла настроек"),
        ((), ("--lang", "uz"), "ru_RU.UTF-8", "sozlamalar fayli yo‘q"),
        (("--lang", "ru"), (), "", "нет файла настроек"),
        (("--lang", "ru"), ("--lang", "en"), "", "no settings file"),
    ],
)
async def test_the_option_lang_overrides_the_environment(
    before: Sequence[str], behind: Sequence[str], lang: str, word: str
) -> None:
    environ = {"LC_ALL": "", "LC_MESSAGES": "", "LANG": lang}
    result = await dhp(*before, "check", *behind, environ=environ, places=[])
    assert result.out.startswith(word)


async def test_lang_is_recognised_behind_help() -> None:
    before = await run_in("run", "--lang", "ru", "--help", language="uz")
    behind = await run_in("run", "--help", "--lang", "ru", language="uz")
    assert before == behind
    assert "Запустить шлюз." in before.out
