"""The documentation as a site: it can be built, is complete, and loads nothing from other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import quote

import pytest

from gateway.i18n import LANGUAGES, language_name
from tests.browser.conftest import BROWSERS
from tests.environments import run, run_or_skip
from tests.tracked_files import tracked_files

pytestmark = pytest.mark.ci

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv-site"
OTHERS = ("ru", "uz")
# What a browser fetches by itself, as opposed to links that a person follows.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)


@pytest.fixture(scope="module")
def mkdocs() -> Path:
    """Return the program, from docs/requirements.lock."""
    line = [".ci/tools", TOOLS, "docs/requirements.lock"]
    run_or_skip("mkdocs cannot be installed: make site", line)
    return TOOLS / "bin" / "mkdocs"


def build(mkdocs: Path, project: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """Build the site as `make site` does."""
    command: list[str | Path] = [
        mkdocs,
        "build",
        "--strict",
        "--config-file",
        ".mkdocs.yml",
        "--site-dir",
        into,
    ]
    return run(command, folder=project, env={"NO_MKDOCS_2_WARNING": "1"})


@pytest.fixture(scope="module")
def site(mkdocs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the site."""
    into = tmp_path_factory.mktemp("site")
    done = build(mkdocs, ROOT, into)
    assert done.returncode == 0, done.stderr
    return into


def test_the_site_has_all_pages_and_loads_nothing(site: Path) -> None:
    pages = {page.name: page.read_text("utf-8") for page in site.rglob("*.html")}
    assert {path.stem for path in tracked_files("docs/*.md")} <= {
        name.removesuffix(".html") for name in pages
    }
    assert {
        name: FETCHED.findall(text) for name, text in pages.items() if FETCHED.search(text)
    } == {}
    assert '"project/config/index.html"' in pages["quick-start.html"]
    assert (site / "project/config/production.yaml").exists()


@pytest.mark.parametrize("page", tracked_files("docs/*.md"), ids=lambda path: path.stem)
def test_the_language_switch_leads_to_translations(site: Path, page: Path) -> None:
    """Else to the start page of the language."""
    stem, _, own = page.stem.partition(".")
    html = (site / f"{page.stem}.html").read_text("utf-8")
    assert f'<html lang="{own or "en"}"' in html
    there = {}
    for language in LANGUAGES:
        suffix = "" if language == "en" else f".{language}"
        known = (ROOT / "docs" / f"{stem}{suffix}.md").exists()
        there[language] = f"{stem if known else 'index'}{suffix}.html"
    shown = re.findall(
        r'<a href="([^"]+)" hreflang="(\w+)" class="md-select__link">\s*(\S+)\s*</a>', html
    )
    assert {language: link for link, language, _ in shown} == there
    named = {language: language_name(language) for language in LANGUAGES}
    assert {language: name for _, language, name in shown} == named


def test_pages_below_project_have_the_language_switch(site: Path) -> None:
    html = (site / "project/config/index.html").read_text("utf-8")
    for language in OTHERS:
        assert f'<a href="../../index.{language}.html" hreflang="{language}"' in html


@pytest.mark.parametrize(
    ("start", "word", "found"),
    [
        ("index.ru.html", "предохранитель", "settings.ru.html"),
        ("errors.uz.html", "navbat", "glossary.uz.html"),
        ("project/config/index.html", "jitter", "settings.html"),
    ],
    ids=["ru", "uz", "en, in a folder below"],
)
def test_the_search_works_from_a_folder(site: Path, start: str, word: str, found: str) -> None:
    """Opened without a server, the site finds a word of each language and links to its page."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium: make test-tools")
    options = ("--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=8000")
    address = f"{(site / start).as_uri()}?q={quote(word)}"
    shown = run([browser, *options, "--dump-dom", address])
    results = shown.stdout.partition("md-search-result__list")[2].partition("</ol>")[0]
    assert f'href="{(site / found).as_uri()}?' in results, shown.stderr[-2000:]
