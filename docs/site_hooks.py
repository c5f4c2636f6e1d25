"""What mkdocs does not do by itself for the site; see .mkdocs.yml.

Pages in docs/ link to files beside docs/ (`../config/production.yaml`), as any page of the
repository does. On the site these files are under `project/`; a folder becomes a page that lists
its files. A page that begins with `<!-- lang: ru -->` is marked as Russian for screen readers.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
OUTSIDE = re.compile(r"(\]\()\.\./([^)#\s]*?)/?((?:#[^)\s]*)?\))")
LANGUAGE = re.compile(r"\A<!-- lang: (\w+) -->")
# Beside what is linked to: the pages that stand in the navigation.
ALWAYS = ("CHANGELOG.md",)


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to outside of docs/."""
    wanted = set(ALWAYS)
    for each in files.documentation_pages():
        wanted |= {found[1] for found in OUTSIDE.findall(each.content_string)}
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


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links out of docs/ to where `on_files` has put their targets."""
    if language := LANGUAGE.match(markdown):
        page.meta["lang"] = language[1]
    here = posixpath.dirname(page.file.src_uri)
    if here.startswith("project"):
        return markdown.replace("](docs/", "](../")

    def moved(found: re.Match[str]) -> str:
        name = f"{found[2]}/index.md" if (ROOT / found[2]).is_dir() else found[2]
        return f"{found[1]}project/{name}{found[3]}"

    return OUTSIDE.sub(moved, markdown)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Say which language a translated page is in."""
    return output.replace('<html lang="en"', f'<html lang="{page.meta.get("lang", "en")}"', 1)
