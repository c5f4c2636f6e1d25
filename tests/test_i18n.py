"""All texts for users and operators are in the catalogues, and the translations are complete."""

from __future__ import annotations

import ast
import errno
import functools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from babel.messages.catalog import Catalog
from babel.messages.mofile import read_mo, write_mo
from babel.messages.pofile import read_po

from gateway import i18n
from gateway.app.preflight import Level
from gateway.audit.chain_verification import Fault
from gateway.cli.usage import WORDS
from gateway.i18n import DOMAINS, EMPTY_MESSAGE, LANGUAGES, Message, all_of, environment_language
from gateway.outbox.entry import EntryState, OutboxEntry, RecoveryMode, entry_view
from tests.test_architecture import texts, trees
from tests.tracked_files import tracked_files

ROOT = Path(__file__).parents[1] / "gateway"
OTHERS = [language for language in LANGUAGES if language != "en"]
# Names, commands, keys of settings and their values: they are the same in every language.
NAMES = frozenset(
    re.findall(
        r"\w+",
        """
        aiohttp Api Apprise base Basic Bearer callers CapabilityStatement chmod chown
        Content Ctrl credentials custom date db dhp DHP DNS doctor EC en Encoding environment ES
        exp expand false FHIR file FILE gateway GiB host HOST HTTP icacls install JSON
        Hospital json JWK Key keygen KiB Lab LANG LoadCredential LogsDirectory ltnp MiB notify null
        Number OAuth Observation off OpenID OpenSSH openssl otel outbox parameter Patient PEM pip
        PKCE playground PORT port PowerShell printf production rand redis Redis RFC root
        RSA ru scope SECRET Set sink ss ssh sslmode sslrootcert stdout syslog systemd TCP
        TLS tr true TYPE umask Unix unix url URL USER User utf UTF uz wheel xn YAML
        CA client Client cookie firewall JWT secret
        """,
    )
)
# Words that are spelled alike in English and Uzbek, or that Uzbek has borrowed unchanged.
SHARED = {"administrator", "audit", "disk", "fragment", "internet", "issuer", "port", "secret"}
SHARED |= {"log", "status", "token"}
# Placeholders, code, keys and variables, paths and URLs, options.
FILLED = re.compile(
    r"`[^`]*`|\{[^{}]*\}|\b[\w-]+(?:[._][\w-]+)+\b|\S*://\S*|[\w/.-]*/[\w/.-]+|--[\w-]+"
)
WORD = re.compile(r"[A-Za-z‘’]*[A-Za-z]{2}[A-Za-z‘’]*")


def catalogue(language: str, *domains: str) -> dict[str, str]:
    """Return the translations of catalogues, by the English sentence; by default of `commands`."""
    texts = {}
    for domain in domains or ("commands",):
        with (ROOT / "locale" / language / "LC_MESSAGES" / f"{domain}.po").open("rb") as file:
            messages = read_po(file, locale=language)
        for each in messages:
            if each.id and not each.context:
                texts[first(each.id)] = first(each.string)
    return texts


def first(text: Any) -> str:
    return text if isinstance(text, str) else str(text[0])


def computed() -> set[str]:
    """Return the sentences that are words of closed lists."""
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
    shown |= {*WORDS}
    return {
        *get_args(Fault),
        *RecoveryMode,
        *get_args(Level),
        *entry_view(entry),
        *shown,
    }


@functools.cache
def nodes() -> list[tuple[str, Any]]:
    """Return each node of the gateway's code with the name of its module."""
    return [(name, node) for name, tree in trees().items() for node in ast.walk(tree)]


def words(text: str) -> set[str]:
    """Return the words in Latin letters that are no names."""
    return set(WORD.findall(FILLED.sub(" ", text))) - NAMES


def test_messages_get_values_as_arguments() -> None:
    """No catalogue has a text that contains values."""
    for name, node in nodes():
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Message":
            assert not isinstance((*node.args, None)[0], ast.JoinedStr), f"{name}:{node.lineno}"


def test_code_has_no_translations() -> None:
    """Translators need no Python."""
    assert [name for name, text in texts().items() if re.search("[Ѐ-ӿ]", text)] == []


def test_code_has_no_markup() -> None:
    """Pages are templates, so that all values in them are escaped; scripts are files."""
    markup = re.compile(r'</(?:[a-z]+)>|<(?:a|b|p|div|html|h[1-6]|svg|td|tr)[ >]|"use strict"')
    for name, node in nodes():
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            # Patterns that are searched in responses are no pages.
            assert not markup.search(node.value) or name.endswith(".search_parameters"), name


@pytest.mark.parametrize("language", OTHERS)
def test_every_computed_key_is_translated(language: str) -> None:
    """Causes, faults, states, facts."""
    assert computed() - {*catalogue(language, *DOMAINS)} == set()


@pytest.mark.parametrize("path", tracked_files("gateway/locale/*.po"), ids=lambda p: p.name)
def test_the_compiled_catalogue_is_that_of_its_source(path: Path) -> None:
    """`make venv` compiles it."""
    with path.open("rb") as file:
        source = read_po(file, locale=path.parts[-3])
    with path.with_suffix(".mo").open("rb") as file:
        compiled = read_mo(file)
    assert translations_of(source) == translations_of(compiled)


def translations_of(messages: Catalog) -> dict[tuple[str | None, str], list[str]]:
    """Return the translations of a catalogue in a form that both kinds of file have."""
    return {(each.context, first(each.id)): list(each.string) for each in messages if each.id}


def made_catalogue(folder: Path, *messages: tuple[Any, Any, str | None]) -> None:
    """Write a Russian catalogue `commands` with the messages, and two empty catalogues."""
    place = folder / "ru" / "LC_MESSAGES"
    place.mkdir(parents=True)
    for domain in DOMAINS:
        catalogue = Catalog(locale="ru")
        for english, russian, context in messages if domain == "commands" else ():
            catalogue.add(english, russian, context=context)
        with (place / f"{domain}.mo").open("wb") as file:
            write_mo(file, catalogue)


@pytest.fixture
def locale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty folder for catalogues."""
    monkeypatch.setattr(i18n, "LOCALE", tmp_path)
    i18n._catalogue.cache_clear()
    yield tmp_path
    i18n._catalogue.cache_clear()


def test_a_context_distinguishes_equal_texts(locale: Path) -> None:
    made_catalogue(locale, ("open", "открыть", None), ("open", "открыта", "state"))
    assert Message("open").in_language("ru") == "открыть"
    assert Message.within("state", "open") == "open"
    assert Message.within("state", "open").in_language("ru") == "открыта"
    assert Message.within("other", "open").in_language("ru") == "open"


def test_an_empty_text_stays_empty() -> None:
    """Its key is that of the header of every catalogue, which must not be shown."""
    assert EMPTY_MESSAGE.in_language("ru") == ""


def test_a_missing_catalogue_causes_a_warning(locale: Path) -> None:
    """The text stays English."""
    with pytest.warns(RuntimeWarning, match="make venv"):
        assert Message("is missing").in_language("ru") == "is missing"


def test_common_errors_of_the_system_are_translated() -> None:
    usual = (errno.ENOENT, errno.EACCES, errno.EADDRINUSE, errno.ENOSPC, errno.EROFS, errno.EISDIR)
    assert {os.strerror(code).lower() for code in usual} <= {*catalogue("ru")}


def test_messages_in_messages_are_translated_too() -> None:
    inner = Message("did you mean {near}?", near=all_of(["a", "b"]))
    line = Message("{told}. {hint:sentence}", told=Message("is missing"), hint=inner)
    assert line == "is missing. Did you mean a and b?"
    assert line.in_language("ru") == "не задано. Имелось в виду a и b?"


def test_a_fallback_replaces_texts_of_other_programs() -> None:
    """Where they have no translation."""
    unknown = Message.external("Strange things happened", Message("cannot be read"))
    assert unknown == "Strange things happened"
    assert unknown.in_language("ru") == "не удаётся прочитать"
    assert Message.external(None, Message("cannot be read")) == "cannot be read"


def test_braces_in_values_are_kept() -> None:
    message = Message("{path}: {why}", path="/srv/{x}", why=Message("is missing"))
    assert message.in_language("uz") == "/srv/{x}: berilmagan"
    assert Message("{}").in_language("ru") == "{}"


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
def test_the_environment_selects_the_language(environ: dict[str, str], language: str) -> None:
    """LC_ALL precedes LC_MESSAGES and LANG (POSIX); other languages mean English."""
    assert environment_language(environ) == language


def _name(node: ast.expr) -> str:
    return getattr(node, "id", getattr(node, "attr", ""))


def test_errors_that_are_shown_are_raised_with_messages() -> None:
    """A plain text would be shown in English.

    `OSError` and `ValueError` are raised by other programs.
    """
    bases = {
        node.name: [_name(base) for base in node.bases]
        for _, node in nodes()
        if isinstance(node, ast.ClassDef)
    }
    message = set()
    for _, node in nodes():
        shows = isinstance(node, ast.ExceptHandler) and "exception_message(" in ast.unparse(node)
        if shows and node.name:
            kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            message |= {_name(kind) for kind in kinds if kind is not None}
    assert {"OutboxError", "StartError", "OutboxConfigurationError"} <= message

    def is_shown(name: str) -> bool:
        return name in bases and (name in message or any(map(is_shown, bases[name])))

    bare = [
        f"{name}:{node.lineno}: {ast.unparse(node)}"
        for name, node in nodes()
        if isinstance(node, ast.Call) and is_shown(_name(node.func)) and node.args
        if isinstance(node.args[0], ast.JoinedStr)
        or (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str))
        or (isinstance(node.args[0], ast.Call) and _name(node.args[0].func) in ("str", "repr"))
    ]
    assert bare == []
