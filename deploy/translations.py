"""Updates the catalogues of translations from the code, and keeps the existing translations.

    python deploy/translations.py            writes them (`make translations`)
    python deploy/translations.py --check    only prints problems (`make check`)

`DOMAINS` assigns a sentence to the catalogue of the part that contains it, or to the first one if
several parts contain it. Pages of the documentation that `make docs` writes have catalogues of
their own. A changed text keeps its old translation, marked fuzzy, until a translator has
reviewed it. docs/translating.md is for translators.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from string import Formatter
from typing import Any

import click
from babel.messages.catalog import Catalog, Message
from babel.messages.extract import extract_from_file
from babel.messages.pofile import read_po, write_po

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from docs.generators import prose_page

LOCALE = ROOT / "gateway" / "locale"
LANGUAGES = ("ru", "uz")
# Pages that have catalogues of their own, and the languages that they are translated to.
PAGES = {
    "errors_page": ("ru", "uz"),
    "settings_page": ("ru",),
    **{name: languages for name, (_, languages) in prose_page.PAGES.items()},
}
# Paths whose sentences a catalogue has, by prefix; the first match applies.
DOMAINS = {
    "callers": (
        *("gateway/errors.py", "gateway/guidance.py", "gateway/fhir/"),
        *("gateway/outbox/async_status.py", "gateway/pipeline/templates/"),
    ),
    "operators": (
        *("gateway/admin/", "gateway/alerts/", "gateway/health/", "gateway/login/"),
        *("gateway/i18n.py", "gateway/oauth/token_failures.py"),
    ),
    "commands": ("gateway/",),
}
# What translators must know about the short texts of a file, by the beginning of its path. Longer
# ones explain themselves.
COMMENTS = {
    "gateway/config/": "Behind the key of a setting and a colon; or a hint, as a sentence.",
    "gateway/app/preflight.py": "Behind what `check` or `doctor` checks; or a hint, as a sentence.",
    "gateway/cli/doctor": "Behind what `doctor` checks and a colon; or a hint, as a sentence.",
    "gateway/cli/init_plan.py": "Comment behind a line of the settings file that `init` writes.",
    "gateway/cli/init_command.py": "A question or choice of `init`, or its result.",
    "gateway/cli/main.py": "Help of a command or option.",
    "gateway/cli/outbox_commands.py": "Column or message of `outbox list`.",
    "gateway/audit/": "Behind a place in an audit file and a colon, about a line or its record.",
    "gateway/oauth/signing_keys.py": "Behind the setting of a private key, about the file.",
    "gateway/oauth/token_failures.py": "About the SSO (`gave no token: …`) or a store; or a hint.",
    "gateway/outbox/entry.py": "About a queued write (an entry of the outbox).",
    "gateway/guidance.py": "About the platform, on a small card; or about a server.",
    "gateway/admin/templates/status": "Heading, column or state on the status page.",
    "gateway/admin/templates/outbox": "Heading, column, state or button on the outbox page.",
}
_MAX_SHORT_WORDS = 5
# The functions that mark sentences in templates, as Babel's keywords: `1c` is a context.
_IN_TEMPLATES: dict[str, Any] = {"_": None, "pgettext": ((1, "c"), 2)}
# Texts that no call in the code contains, one on each line: those of other programs, and words of
# closed lists.
UNMARKED = ROOT / "deploy" / "unmarked_texts.txt"


class _Catalogue(Catalog):
    """A catalogue whose header has no dates, so that it changes only with its messages."""

    def _get_mime_headers(self) -> list[tuple[str, str]]:
        return [
            ("Project-Id-Version", "DHP Gateway"),
            ("Language", str(self.locale)),
            ("MIME-Version", "1.0"),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Transfer-Encoding", "8bit"),
            ("Plural-Forms", self.plural_forms),
        ]

    mime_headers = property(_get_mime_headers, Catalog._set_mime_headers)  # type: ignore[assignment]


def main(arguments: list[str]) -> int:
    """Return exit code 0, or 1 when `--check` finds a problem."""
    templates = extracted()
    if "--check" in arguments:
        problems = list(mistakes(templates))
        print(*problems, sep="\n", end="\n" if problems else "")
        return 1 if problems else 0
    for language in LANGUAGES:
        before = {name: read(name, language) for name in templates if has(name, language)}
        for name in before:
            write(renewed(templates[name], before, name, language), name, language)
    return 0


def has(name: str, language: str) -> bool:
    """Return whether a catalogue exists in a language."""
    return language in PAGES.get(name, LANGUAGES)


def extracted() -> dict[str, Catalog]:
    """Return the texts of code, templates, closed lists and pages, by catalogue."""
    templates = {name: Catalog() for name in (*DOMAINS, *PAGES)}
    seen: dict[tuple[str | None, str], str] = {}
    comments = dict(_unmarked())
    for domain, file, message, context in sorted(_found(), key=_order):
        key = (context, message if isinstance(message, str) else message[0])
        if seen.setdefault(key, domain) == domain:
            comment = comments.get(message) or _comment(file, key[1])
            templates[domain].add(
                *(message, None, [(file, None)], (), [comment] if comment else ()), context=context
            )
    for page in PAGES:
        for context, message in asked_for(page):
            templates[page].add(message, context=context)
    return templates


def asked_for(page: str) -> list[tuple[str | None, str]]:
    """Return context and text of everything that a page of the documentation translates."""
    from docs.generators import errors_page, settings_page

    if page in prose_page.PAGES:
        return [(None, text) for text in prose_page.texts(page)]
    module = {"errors_page": errors_page, "settings_page": settings_page}[page]
    language = PAGES[page][0]
    module.markdown(language)
    return [*module.words_of(language).translation.asked]


# Catalogue, file, text or both plural forms, context.
_Found = tuple[str, str, str | tuple[str, str], str | None]


def _order(found: _Found) -> tuple[int, str]:
    return [*DOMAINS].index(found[0]), found[1]


def _found() -> Iterator[_Found]:
    from gateway.cli.main import cli

    for path in sorted((ROOT / "gateway").rglob("*")):
        file = str(path.relative_to(ROOT))
        read = {".py": in_code, ".html": in_template}.get(path.suffix)
        for message, context in read(path) if read is not None else ():
            if context is not None or _has_words(message):
                yield (
                    next(d for d, at in DOMAINS.items() if file.startswith(at)),
                    file,
                    message,
                    context,
                )
    for message in helped(cli):
        yield "commands", "gateway/cli/main.py", message, None
    for text, _ in _unmarked():
        yield "commands", str(UNMARKED.relative_to(ROOT)), text, None


def _unmarked() -> Iterator[tuple[str | tuple[str, str], str]]:
    """Yield each text of `UNMARKED`, or both plural forms, and the comment above it."""
    comment = ""
    for line in UNMARKED.read_text("utf-8").splitlines():
        if line.startswith("#"):
            comment = line.removeprefix("#").strip()
        else:
            one, *many = line.split(" | ")
            yield (one, many[0]) if many else one, comment


def _comment(file: str, text: str) -> str:
    """Return what translators must know about a short text, empty if there is nothing."""
    if len(text.split()) > _MAX_SHORT_WORDS:
        return ""
    return next((comment for at, comment in COMMENTS.items() if file.startswith(at)), "")


def in_code(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield text and context of each `Message(…)` and `Message.within(…)`."""
    nodes = ast.walk(ast.parse(path.read_text("utf-8")))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    for node in sorted(calls, key=lambda each: (each.lineno, each.col_offset)):
        texts = [each.value for each in node.args if isinstance(each, ast.Constant)]
        match ast.unparse(node.func), texts:
            case "Message", [str(text)]:
                yield text, None
            case "_", [str(text)]:
                yield text, None
            case "Message.within", [str(context), str(text)]:
                yield text, context


def in_template(path: Path) -> Iterator[tuple[str, str | None]]:
    """Yield text and context of everything that a template marks for translation."""
    options = {"trimmed": "true"}
    found = extract_from_file("jinja2.ext:babel_extract", path, _IN_TEMPLATES, (), options, True)
    yield from ((message, context) for _, message, _, context in found)


def _has_words(message: str) -> bool:
    return any(letter.isalpha() for part, *_ in Formatter().parse(message) for letter in part)


def helped(command: Any) -> Iterator[str]:
    """Yield the help texts of a command, of its options and arguments, and of its subcommands."""
    from gateway.cli.usage import paragraphs

    if command.hidden:
        return
    yield from map(str, paragraphs(command.help))
    yield from (each.help for each in command.params if each.help)
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            yield from helped(command.get_command(context, name))


def path_of(name: str, language: str) -> Path:
    """Return the path of a catalogue."""
    if name in PAGES:
        return ROOT / "docs" / "generators" / f"{name}.{language}.po"
    return LOCALE / language / "LC_MESSAGES" / f"{name}.po"


def read(name: str, language: str) -> Catalog:
    """Return a catalogue as it is in its file, empty if there is no file."""
    path = path_of(name, language)
    if not path.exists():
        return Catalog(locale=language)
    with path.open("rb") as file:
        return read_po(file, locale=language)


def write(catalogue: Catalog, name: str, language: str) -> None:
    """Write a catalogue in an order and a form that depend only on its messages."""
    path = path_of(name, language)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_po(file, catalogue, width=100, include_lineno=False, ignore_obsolete=True)


def renewed(template: Catalog, before: dict[str, Catalog], name: str, language: str) -> Catalog:
    """Return a catalogue with the messages of `template` and the translations of `before`.

    A message that has moved from one catalogue of the gateway to another keeps its translation.
    """
    wanted, old = _keys(template), Catalog(locale=language)
    for catalogue in (*before.values(), before[name]):
        for message in _messages(catalogue):
            if catalogue is before[name] or (_key(message) in wanted and name in DOMAINS):
                old.add(
                    *(message.id, message.string, (), message.flags),
                    user_comments=message.user_comments,
                    context=message.context,
                )
    old.update(template)
    header = f"# DHP Gateway: {name}, {language}."
    new = _Catalogue(locale=language, fuzzy=False, header_comment=header)
    for message in _messages(template):
        now = old.get(message.id, message.context)
        new.add(
            *(message.id, now.string, message.locations, now.flags, message.auto_comments),
            user_comments=now.user_comments,
            context=message.context,
        )
    return new


def mistakes(templates: dict[str, Catalog]) -> Iterator[str]:
    """Yield a line for each message that is missing, obsolete, untranslated, fuzzy or invalid."""
    for name, template in templates.items():
        for language in filter(partial(has, name), LANGUAGES):
            catalogue, where = read(name, language), path_of(name, language).relative_to(ROOT)
            for _, english in sorted(_keys(template) - _keys(catalogue), key=str):
                yield f"{where}: is missing: {english!r}; `make translations` puts it there"
            for _, english in sorted(_keys(catalogue) - _keys(template), key=str):
                yield f"{where}: is obsolete: {english!r}; `make translations` takes it out"
            for message in _messages(catalogue):
                if (wrong := _mistake(message)) is not None:
                    yield f"{where}: {wrong}: {message.id!r}"


def _mistake(message: Message) -> str | None:
    forms = message.string if isinstance(message.string, tuple | list) else (message.string,)
    if not all(forms):
        return "has no translation"
    if message.fuzzy:
        return "is fuzzy: look at its translation and remove the mark"
    # A plural form may write its number as a word, as English may.
    english = (message.id,) if isinstance(message.id, str) else message.id
    wanted = [_placeholders(each) for each in english]
    # The translation of a text of another program may omit values.
    is_external = any(file == UNMARKED.name for file in _files(message))
    for form in map(_placeholders, forms):
        if form not in wanted and not (is_external and set(form) <= set(wanted[-1])):
            return "has other {placeholders} in its translation"
    return None


def _files(message: Message) -> Iterator[str]:
    return (Path(file).name for file, _ in message.locations)


def _placeholders(text: str) -> list[tuple[str, str, str]]:
    # Texts of other programs, and JSON, may contain braces that are no placeholders.
    try:
        parts = [*Formatter().parse(text)]
    except ValueError:
        return []
    # The width of a column differs from language to language.
    return sorted(
        (name, re.sub(r"^[<>]\d+$", "", spec or ""), how or "")
        for _, name, spec, how in parts
        if name is not None
    )


def _messages(catalogue: Catalog) -> Iterator[Message]:
    return (message for message in catalogue if message.id)


def _key(message: Message) -> tuple[str | None, str]:
    return message.context, message.id if isinstance(message.id, str) else message.id[0]


def _keys(catalogue: Catalog) -> set[tuple[str | None, str]]:
    return {_key(message) for message in _messages(catalogue)}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
