"""Documents in Russian and Uzbek have the sections, commands and links of the English ones.

A command that is wrong in one language only is found by no other test. Headings that are names (an
alert, a reason, a term of the glossary) are the same in every language.
"""

from __future__ import annotations

import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from docs.generators import prose_page
from gateway.i18n import LANGUAGES, language_name
from tests.test_documents import anchors, without_blocks
from tests.tracked_files import tracked_files

DOCS = Path(__file__).parents[1] / "docs"
TRANSLATED = [*tracked_files("docs/*.ru.md"), *tracked_files("docs/*.uz.md")]
BLOCK = re.compile(r"^( *)```(\w+)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
# What is typed or copied; what is printed may be in the reader's language.
COPIED = {"sh", "yaml", "ini", "powershell"}
# A person reads and writes it in their own language.
OWN = re.compile(r"(?<=Accept-Language: )(?:en|ru|uz)|(?m: *# .*$)")
HEADING = re.compile(r"^(#+) (.+)$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)|<(https?:[^>]+)>")
SWITCH = re.compile(r"^(?:[^\n]* · )?(?:English|\[English\]\([^\n]*)(?: · [^\n]*)?$", re.MULTILINE)
everywhere = pytest.mark.parametrize("path", TRANSLATED, ids=lambda path: path.name)


def written(path: Path) -> str:
    """Return a document without the switch of languages and comments."""
    return re.sub(r"<!--.*?-->", "", SWITCH.sub("", path.read_text("utf-8")), flags=re.DOTALL)


def in_language(page: Path, language: str) -> Path:
    """Return the page in a language, or itself where there is none."""
    there = page.with_name(f"{page.name.partition('.')[0]}.{language}.md")
    return there if there.exists() else page


def original(path: Path) -> tuple[Path, str]:
    """Return the English page of a translated one, and the language."""
    stem, language, _ = path.name.split(".")
    return path.with_name(f"{stem}.md"), language


def target_in(page: Path, language: str, target: str) -> str:
    """Return the target of a link of an English page in its translation."""
    if not re.match(r"[\w./-]*\.md(#|$)|#", target):
        return target
    name, _, section = target.partition("#")
    meant = page.parent / name if name else page
    there = in_language(meant, language)
    if there != meant and section:
        section = anchors(there)[anchors(meant).index(section)]
    name = name and name.removesuffix(meant.name) + there.name
    return f"{name}#{section}" if section else name


def links(path: Path) -> Counter[str]:
    return Counter("".join(found) for found in LINK.findall(BLOCK.sub("", written(path))))


def sections(path: Path) -> list[tuple[str, str, str]]:
    parts = HEADING.split(BLOCK.sub("", written(path)))[1:]
    return list(zip(parts[::3], parts[1::3], parts[2::3], strict=True))


def code(text: str) -> set[str]:
    named = re.findall(r"(?<!`)`([^`\n]+)`", text)
    return {re.sub("--lang (?:en|ru|uz)$", "--lang", each) for each in named}


@everywhere
def test_the_sections_are_those_of_the_english_page(path: Path) -> None:
    """In the same order; headings that are names are the same."""
    english, _ = original(path)
    meant, there = sections(english), sections(path)
    assert [level for level, *_ in there] == [level for level, *_ in meant]
    names = re.compile(r"[a-z-]+|[A-Za-z]+[A-Z][A-Za-z]*|`[^`]+`")
    for (_, heading, _), (_, translated, _) in zip(meant, there, strict=True):
        if names.fullmatch(heading):
            assert translated == heading


@everywhere
def test_each_section_names_the_same_settings_and_commands(path: Path) -> None:
    english, _ = original(path)
    for (_, heading, meant), (_, _, text) in zip(sections(english), sections(path), strict=True):
        assert code(text) == code(meant), heading


@everywhere
def test_blocks_to_copy_are_identical(path: Path) -> None:
    """Except for comments."""
    pages = [path, original(path)[0]]
    found, meant = (BLOCK.findall(page.read_text("utf-8")) for page in pages)
    assert [kind for _, kind, _ in found] == [kind for _, kind, _ in meant]
    for (_, kind, text), (_, _, english) in zip(found, meant, strict=True):
        if kind in COPIED:
            assert OWN.sub("", text) == OWN.sub("", english)


@everywhere
def test_links_lead_to_the_pages_language(path: Path) -> None:
    """Where there is a translation."""
    english, language = original(path)
    meant = Counter({target_in(english, language, each): n for each, n in links(english).items()})
    assert links(path) == meant


@pytest.mark.parametrize("page", tracked_files("docs/*.md"), ids=lambda path: path.name)
def test_a_page_links_its_translations(page: Path) -> None:
    """Below the title; nothing where there is only one."""
    stem, _, suffix = page.name.partition(".")
    language = suffix.removesuffix("md").strip(".") or "en"
    there = {"en": DOCS / f"{stem}.md"} | {
        each: DOCS / f"{stem}.{each}.md" for each in ("ru", "uz")
    }
    shown = [
        language_name(each) if each == language else f"[{language_name(each)}]({there[each].name})"
        for each in LANGUAGES
        if there[each].exists()
    ]
    lines = page.read_text("utf-8").splitlines()
    assert lines[0].startswith("# ")
    assert (lines[2] == " · ".join(shown)) == (len(shown) > 1)
    assert len(SWITCH.findall(without_blocks(page))) == (len(shown) > 1)


def test_a_changed_sentence_is_english_until_it_is_translated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is a text that the check misses in the catalogue."""
    for each in tracked_files("docs/*.md"):
        shutil.copy(each, tmp_path)
    page = tmp_path / "outbox.md"
    changed = "A sentence that no translator has seen."
    page.write_text(f"{page.read_text('utf-8')}\n{changed}\n", "utf-8")
    monkeypatch.setattr(prose_page, "DOCS", tmp_path)
    for cached in (prose_page._translated, prose_page._anchors):
        monkeypatch.setattr(prose_page, cached.__name__, cached.__wrapped__)
    made = prose_page.documents()
    assert prose_page.texts("outbox_page")[-1] == changed
    assert made[tmp_path / "outbox.uz.md"].endswith(f"\n{changed}\n")
    assert made[tmp_path / "operations.uz.md"] == (DOCS / "operations.uz.md").read_text("utf-8")
