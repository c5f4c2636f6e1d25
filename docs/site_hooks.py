"""Hooks of mkdocs for the site; see .mkdocs.yml.

Pages in docs/ link to files outside docs/ (`../config/production.yaml`), as any page of the
repository does. On the site these files are under `project/`; a folder becomes a page that lists
its files. `name.ru.md` is the Russian page of `name.md`: it is marked as such, has the Russian
navigation, and both pages link to each other.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from copy import copy
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")
# mkdocs has an environment without the gateway, so that these copy `gateway.i18n.language_name`.
LANGUAGES = {"en": "English", "ru": "Русский", "uz": "O‘zbekcha"}
TRANSLATED = re.compile(r"\.(ru|uz)\.md$")
# Pages of the navigation, which are added although no page links to them.
ALWAYS = ("CHANGELOG.md",)


def on_files(files: Files, config: Any) -> Files:
    """Add the files outside docs/ to which pages link."""
    wanted = set(ALWAYS)
    for each in files.documentation_pages():
        named = (_meant(link, each.src_uri) for link in LINK.findall(each.content_string))
        wanted |= {name for name in named if not name.startswith("docs/")}
    for name in sorted(wanted):
        for file in _files(name, config):
            if file.src_uri not in files.src_uris:
                files.append(file)
    return files


def _files(name: str, config: Any) -> Iterator[File]:
    path = ROOT / name
    if path.is_file():
        yield _copy(path, config)
    elif path.is_dir():
        inside = sorted(each for each in path.rglob("*") if each.is_file() and _is_kept(each))
        yield from (_copy(each, config) for each in inside)
        listed = (f"- [{each.relative_to(path)}]({each.relative_to(path)})" for each in inside)
        text = "\n".join((f"# {name}/", "", *listed, ""))
        yield File.generated(config, f"project/{name}/index.md", content=text)


def _is_kept(path: Path) -> bool:
    return not {"node_modules", "__pycache__"} & set(path.parts)


def _copy(path: Path, config: Any) -> File:
    uri = f"project/{path.relative_to(ROOT)}"
    if path.suffix == ".md":
        return File.generated(config, uri, content=path.read_text(encoding="utf-8"))
    return File.generated(config, uri, abs_src_path=str(path))


def _meant(link: str, uri: str) -> str:
    """Return the path in the repository of a link on a page of the site."""
    page = uri.removeprefix("project/") if uri.startswith("project/") else f"docs/{uri}"
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Replace links by those to the location of their targets on the site."""
    here = page.file.src_uri

    def moved(found: re.Match[str]) -> str:
        name = _meant(found[1], here)
        if name.startswith("docs/"):
            there = name.removeprefix("docs/")
        else:
            there = f"project/{name}/index.md" if (ROOT / name).is_dir() else f"project/{name}"
        return posixpath.relpath(there, posixpath.dirname(here))

    return LINK.sub(moved, markdown)


def on_page_context(context: Any, page: Any, config: Any, nav: Any) -> Any:
    """Set the language of a page: the theme's texts, the navigation, and the links to others."""
    uri = page.file.src_uri
    language = _language(uri)
    config.theme["language"] = language
    config.extra["alternate"] = [
        {"name": name, "link": _in_language(page, other), "lang": other}
        for other, name in LANGUAGES.items()
    ]
    own = copy(nav)
    own.homepage = next(each for each in nav.pages if each.url == _start(language))
    own.items = [each for each in nav.items if _language(_first(each)) in (language, "en")]
    if language != "en":
        own.items.sort(key=lambda each: _language(_first(each)) == "en")
    return {**context, "nav": own}


def _language(uri: str) -> str:
    found = TRANSLATED.search(uri)
    return found[1] if found else "en"


def _in_language(page: Any, language: str) -> str:
    """Return the address of a page in a language, or that of the first page in the language."""
    uri = page.file.src_uri
    if language == _language(uri):
        return str(page.url)
    english = TRANSLATED.sub(".md", uri)
    name = english if language == "en" else f"{english.removesuffix('.md')}.{language}.md"
    return (
        f"{name.removesuffix('.md')}.html" if (ROOT / "docs" / name).exists() else _start(language)
    )


def _start(language: str) -> str:
    return "index.html" if language == "en" else f"index.{language}.html"


def _first(item: Any) -> str:
    """Return the first page below an item of the navigation."""
    return _first(item.children[0]) if item.children else item.file.src_uri
