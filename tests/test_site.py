"""The documentation as a site: it can be built, is whole, and asks nothing of other hosts."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ROOT / ".venv-site"
# What a browser fetches by itself, as opposed to links that a person follows.
FETCHED = re.compile(
    r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["']?((?:https?:)?//[^"'\s>]+)"""
)


@pytest.fixture(scope="module")
def mkdocs() -> Path:
    """The program, from docs/requirements.lock."""
    made = subprocess.run(
        [".ci/tools", TOOLS, "docs/requirements.lock"], cwd=ROOT, capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"mkdocs cannot be installed: make site\n{made.stderr[-500:]}")
    return TOOLS / "bin" / "mkdocs"


def build(mkdocs: Path, project: Path, into: Path) -> subprocess.CompletedProcess[str]:
    """What `make site` does."""
    command: list[str | Path] = [
        mkdocs,
        "build",
        "--strict",
        "--config-file",
        ".mkdocs.yml",
        "--site-dir",
        into,
    ]
    return subprocess.run(
        command, cwd=project, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1"}
    )


def test_the_site(mkdocs: Path, tmp_path: Path) -> None:
    """Every page is in the navigation, every link leads somewhere, and nothing is fetched."""
    done = build(mkdocs, ROOT, tmp_path)
    assert done.returncode == 0, done.stderr
    pages = {page.name: page.read_text("utf-8") for page in tmp_path.rglob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= {
        name.removesuffix(".html") for name in pages
    }
    assert {
        name: FETCHED.findall(text) for name, text in pages.items() if FETCHED.search(text)
    } == {}
    assert '<html lang="uz"' in pages["quick-start.uz.html"]
    assert '"project/config/index.html"' in pages["quick-start.html"]
    assert (tmp_path / "project/config/production.yaml").exists()


@pytest.mark.parametrize(
    ("added", "told"),
    [
        ("[a](faq.md#nothing)", "does not contain an anchor"),
        ("[a](nothing.md)", "is not found among documentation files"),
        ("[a](../config/nothing.yaml)", "is not found among documentation files"),
    ],
    ids=["anchor", "page", "file beside docs"],
)
def test_a_broken_link_is_noticed(mkdocs: Path, tmp_path: Path, added: str, told: str) -> None:
    """A page with a link to nowhere ends the build."""
    for name in ("docs", "config", "deploy"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("node_modules"))
    for name in (".mkdocs.yml", "CHANGELOG.md"):
        shutil.copy(ROOT / name, tmp_path)
    with (tmp_path / "docs" / "audit.md").open("a") as page:
        page.write(f"\n{added}\n")
    done = build(mkdocs, tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert told in done.stderr
