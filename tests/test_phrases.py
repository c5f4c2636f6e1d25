"""Whatever a command says stands in the catalogue three times, and Russian is all Russian."""

from __future__ import annotations

import ast
import errno
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from gateway.phrases import catalogue
from gateway.phrases.tables import TABLES
from typer.main import get_command

from gateway.audit.verify import Fault
from gateway.cli import cli
from gateway.commands.findings import State as FindingState
from gateway.commands.usage import WORDS, paragraphs
from gateway.i18n import (
    EMPTY_MESSAGE,
    LANGUAGES,
    Message,
    all_of,
    environment_language,
    exception_message,
    join_messages,
)
from gateway.oauth.token_response import Cause
from gateway.outbox.entry import EntryState, OutboxEntry, RecoveryMode
from gateway.outbox.shown import entry_view
from gateway.process.factories import StartError

ROOT = Path(__file__).parents[1] / "gateway"
OTHERS = [language for language in LANGUAGES if language != "en"]
LETTER = re.compile(r"[A-Za-z]")
PLACEHOLDER = re.compile(r"\{[^{}]*\}")
# Names, commands, keys of settings and their values, which are the same in every language.
NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        aiohttp Api Apprise base Basic Bearer callers CapabilityStatement chmod chown
        Content Ctrl credentials custom date db dhp DHP DNS doctor EC en Encoding environment ES
        exp expand false FHIR file FILE gateway GiB host HOST HTTP icacls install JSON
        json JWK Key keygen KiB LANG LoadCredential LogsDirectory ltnp MiB notify null
        OAuth Observation off OpenID OpenSSH openssl otel outbox parameter Patient PEM pip
        PKCE playground PORT port PowerShell printf production rand redis Redis RFC root
        RSA ru scope SECRET Set sink ss ssh sslmode sslrootcert stdout syslog systemd TCP
        TLS tr true TYPE umask Unix unix url URL USER User utf UTF uz wheel xn YAML
        """,
    )
)
# What English and Uzbek write alike, or what Uzbek takes over as it is.
SHARED = {"administrator", "audit", "disk", "fragment", "internet", "issuer", "port", "secret"}
SHARED |= {"log", "status", "token"}
# Placeholders, code, keys and variables, paths and URLs, options.
FILLED = re.compile(
    r"`[^`]*`|\{[^{}]*\}|\b[\w-]+(?:[._][\w-]+)+\b|\S*://\S*|[\w/.-]*/[\w/.-]+|--[\w-]+"
)
WORD = re.compile(r"[A-Za-z‘’]*[A-Za-z]{2}[A-Za-z‘’]*")


def literals() -> Iterator[str]:
    """Every sentence that stands in a `Message(…)`, but for those of placeholders alone."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Message":
                first = node.args[0] if node.args else None
                assert not isinstance(first, ast.JoinedStr), f"{path.name}:{node.lineno}"
                if isinstance(first, ast.Constant) and LETTER.search(
                    PLACEHOLDER.sub("", first.value)
                ):
                    yield first.value


def computed() -> set[str]:
    """The sentences that are words of closed lists."""
    entry = OutboxEntry.__new__(OutboxEntry)
    for name in OutboxEntry.__slots__:
        object.__setattr__(entry, name, None)
    for name, value in (
        ("state", EntryState.SENDING),
        ("recovery", RecoveryMode.VERIFY),
        ("queued_at", 0.0),
    ):
        object.__setattr__(entry, name, value)
    shown = {"request", "answer", "method", "interaction", "resource", "request_id", "credential"}
    shown |= {"address", "body", "fields", "status", "reason", "note", "there is no such entry"}
    shown |= {*WORDS, *helped(get_command(cli))}
    return {
        *get_args(Cause),
        *get_args(Fault),
        *EntryState,
        *RecoveryMode,
        *get_args(FindingState),
        *entry_view(entry),
        *shown,
    }


def helped(command: Any) -> Iterator[str]:
    """All that the help of a command says, and of those below it."""
    if command.hidden:
        return
    yield from paragraphs(command.help)
    yield from (each.help for each in command.params if each.help)
    for below in getattr(command, "commands", {}).values():
        yield from helped(below)


def words(text: str) -> set[str]:
    """Words in Latin letters that are no names."""
    return set(WORD.findall(FILLED.sub(" ", text))) - NAMES


@pytest.mark.parametrize("language", OTHERS)
def test_every_sentence_has_all_its_texts(language: str) -> None:
    """No command says what it cannot say in Russian and Uzbek."""
    assert {*literals(), *computed()} - {*catalogue(language)} == set()


def test_no_sentence_is_left_over_or_there_twice() -> None:
    """The catalogue holds what is said, once; but for the words of other programs."""
    *own, shared = TABLES
    keys = [key for table in TABLES for key in table]
    assert len(keys) == len(set(keys))
    assert {key for table in own for key in table} - {*literals(), *computed()} == set()
    assert {*computed()} - {*literals()} <= {*shared, *keys}


@pytest.mark.parametrize("language", OTHERS)
def test_all_texts_of_a_sentence_take_the_same_values(language: str) -> None:
    """What is filled in in English is filled in in the others, in the same form."""
    for english, text in catalogue(language).items():
        assert sorted(PLACEHOLDER.findall(text)) == sorted(PLACEHOLDER.findall(english)), english


def test_russian_holds_no_english_word() -> None:
    """Latin letters are for names and commands only."""
    assert {word for text in catalogue("ru").values() for word in words(text)} == set()


def test_uzbek_holds_no_english_word() -> None:
    """No word of the English sentences stands in the Uzbek ones, unless it is Uzbek too."""
    table = catalogue("uz")
    english = {word.lower() for sentence in table for word in words(sentence)}
    uzbek = {word.lower() for text in table.values() for word in words(text)}
    assert uzbek & english <= SHARED


def test_uzbek_letters_are_written_with_one_sign() -> None:
    """o‘ and g‘ have U+2018 and the tutuq belgisi U+2019; no other apostrophe stands for them."""
    for text in catalogue("uz").values():
        assert re.findall(r"[A-Za-z]['ʻʼ´][a-z]|[OoGg]’|[^OoGg]‘", FILLED.sub("", text)) == []


@pytest.mark.parametrize("language", OTHERS)
def test_the_sso_has_its_name(language: str) -> None:
    """It is called as in the outcomes and on the status page."""
    assert not any("SSO" in text for text in catalogue(language).values())


def test_common_words_of_the_system_are_known() -> None:
    """What goes wrong with files and addresses is not left in English."""
    usual = (errno.ENOENT, errno.EACCES, errno.EADDRINUSE, errno.ENOSPC, errno.EROFS, errno.EISDIR)
    assert {os.strerror(code).lower() for code in usual} <= {*catalogue("ru")}


def test_phrases_in_phrases_are_translated_too() -> None:
    """A hint in a line, a name in a hint: all of it is of one language."""
    inner = Message("did you mean {near}?", near=all_of(["a", "b"]))
    line = Message("{told}. {hint:sentence}", told=Message("is missing"), hint=inner)
    assert line == "is missing. Did you mean a and b?"
    assert line.in_language("ru") == "не задано. Имелось в виду a и b?"


def test_what_another_program_says_is_not_left_in_english() -> None:
    """A text without a translation reads as the general one."""
    unknown = Message.external("Strange things happened", Message("cannot be read"))
    assert unknown == "Strange things happened"
    assert unknown.in_language("ru") == "не удаётся прочитать"
    assert Message.external(None, Message("cannot be read")) == "cannot be read"


def test_values_are_never_taken_for_sentences() -> None:
    """Braces in a path or name stay as they are."""
    told = Message("{path}: {why}", path="/srv/{x}", why=Message("is missing"))
    assert told.in_language("uz") == "/srv/{x}: berilmagan"
    assert Message("{}").in_language("ru") == "{}"


def test_an_exception_carries_its_phrase_to_another_process() -> None:
    """A worker's reason is told by the command in the language of the terminal."""
    failure = StartError(
        join_messages("\n", [Message("did you mean {near}?", near="x"), EMPTY_MESSAGE])
    )
    data = json.loads(json.dumps(exception_message(failure).as_data()))
    assert Message.from_data(data) == str(failure)
    assert Message.from_data(data).in_language("ru") == "имелось в виду x?\n"


@pytest.mark.parametrize(
    ("environ", "language"),
    [
        ({}, "en"),
        ({"LANG": "C.UTF-8"}, "en"),
        ({"LANG": "POSIX"}, "en"),
        ({"LANG": "ru_RU.UTF-8"}, "ru"),
        ({"LANG": "uz_UZ@cyrillic"}, "uz"),
        ({"LANG": "uz"}, "uz"),
        ({"LANG": "run_XX"}, "en"),
        ({"LANG": "de_DE.UTF-8"}, "en"),
        ({"LANG": "ru_RU", "LC_MESSAGES": "uz_UZ"}, "uz"),
        ({"LANG": "ru_RU", "LC_MESSAGES": "uz_UZ", "LC_ALL": "C"}, "en"),
        ({"LANG": "ru_RU", "LC_ALL": ""}, "ru"),
    ],
)
def test_the_environment_says_the_language(environ: dict[str, str], language: str) -> None:
    """As for every program: LC_ALL, else LC_MESSAGES, else LANG; English for all others."""
    assert environment_language(environ) == language


def _name(node: ast.expr) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def test_no_error_that_is_shown_carries_a_bare_text() -> None:
    """What `exception_phrase` shows of an exception was a phrase when it was raised, or a bug is
    left English.

    `OSError` and `ValueError` are of other programs.
    """
    trees = {path: ast.parse(path.read_text("utf-8")) for path in ROOT.rglob("*.py")}
    nodes = [(path, node) for path, tree in trees.items() for node in ast.walk(tree)]
    bases = {
        node.name: [_name(base) for base in node.bases]
        for _, node in nodes
        if isinstance(node, ast.ClassDef)
    }
    told = set()
    for _, node in nodes:
        shows = isinstance(node, ast.ExceptHandler) and "exception_phrase(" in ast.unparse(node)
        if shows and node.name:
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            told |= {_name(kind) for kind in kinds if kind is not None}
    assert {"OutboxError", "StartError", "OutboxConfigurationError"} <= told

    def is_shown(name: str) -> bool:
        return name in bases and (name in told or any(map(is_shown, bases[name])))

    bare = [
        f"{path.name}:{node.lineno}: {ast.unparse(node)}"
        for path, node in nodes
        if isinstance(node, ast.Call) and is_shown(_name(node.func)) and node.args
        if isinstance(node.args[0], ast.JoinedStr)
        or (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str))
        or (isinstance(node.args[0], ast.Call) and _name(node.args[0].func) in ("str", "repr"))
    ]
    assert bare == []
