"""Writes the documents that are generated from code; `--check` only lists outdated ones."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT)]

from docs.generators import errors_page, prose_page, settings_page
from gateway import __version__
from gateway.config import settings_schema
from gateway.i18n import LANGUAGES, language_name

DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "dhp-gateway" / "values.schema.json"
# Files that name the version: as a part of an artifact's name, or alone behind one of these words.
VERSIONED = (
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("installation*.md")),
    *sorted((DEPLOY / "compose").glob("*.yaml")),
    *sorted((DEPLOY / "kubernetes").glob("*/kustomization.yaml")),
    DEPLOY / "helm" / "dhp-gateway" / "Chart.yaml",
)
VERSION = re.compile(r"""(dhp[-_]gateway[-:]|newTag: |appVersion: ")\d+\.\d+\.\d+(?:\.dev\d+)?\b""")
CHART_VERSION = re.compile(r"^version: .*$", re.MULTILINE)
PROGRAMS = ROOT / "tests" / "legacy" / "programs"
# In docs/clients*.md: the place of a sample with the name of its source, and the first two lines of
# the table.
SAMPLE = re.compile(r"(<!-- sample: (\S+?)(\.\w+) -->\n)(?:\n```.*?\n```\n)?", re.DOTALL)
REGION = re.compile(r"^[^\n]*<sample>[^\n]*\n(.*?)^[^\n]*</sample>", re.DOTALL | re.MULTILINE)
TABLE = re.compile(r"(<!-- table -->\n\n\|.*\|\n\|[- |]*\|\n)(?:\|.*\|\n)*")
# The place of the first row of the table of fields.
FIELDS = re.compile(r"(<!-- fields -->\n\n\|.*\|\n\|[- |]*\|\n)(?:\|.*\|\n)?")
FENCES = {".cs": "csharp", ".mjs": "js", ".pas": "pascal"}
# The columns of the table are the steps of tests/legacy/walk.py. `WORDS` are its results in words.
STEPS = (
    *("read", "search", "paging", "create", "update", "delete", "error", "upload", "download"),
    *("five", "idle", "proxy"),
)
WORDS = {
    "en": {"yes": "✓", "new": "new", "one": "one command", "none": "no proxy"},
    "ru": {"yes": "✓", "new": "новое", "one": "одной командой", "none": "нет прокси"},
}


def documents() -> dict[Path, str]:
    """Return the expected content of every generated file."""
    beside = {CHART: chart_schema()} if CHART.exists() else {}
    for page in sorted((ROOT / "docs").glob("clients*.md")):
        beside[page] = clients_page(page)
    beside |= {file: with_version(file.read_text(encoding="utf-8")) for file in VERSIONED}
    beside |= pages("settings", ("en", "ru"), settings_page.markdown)
    beside |= pages("errors", LANGUAGES, errors_page.markdown)
    beside |= prose_page.documents()
    return beside | {ROOT / "config" / "reference.yaml": settings_page.reference_yaml()}


def pages(name: str, languages: Iterable[str], markdown: Callable[[str], str]) -> dict[Path, str]:
    """Return a page in each of its languages, with links to the others below its title."""
    names = {each: f"{name}.md" if each == "en" else f"{name}.{each}.md" for each in languages}
    made = {}
    for language, own in names.items():
        switch = " · ".join(
            language_name(each) if each == language else f"[{language_name(each)}]({other})"
            for each, other in names.items()
        )
        title, _, text = markdown(language).partition("\n")
        made[ROOT / "docs" / own] = f"{title}\n\n{switch}\n{text}"
    return made


def chart_schema() -> str:
    """Return the schema of the Helm chart's values with the current schema of the settings."""
    values = json.loads(CHART.read_text(encoding="utf-8"))
    settings = settings_schema.json_schema()
    values["$defs"] = settings.pop("$defs")
    del settings["$schema"]
    values["properties"]["settings"] = settings
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"


def with_version(text: str) -> str:
    """Return a text with the current version wherever it names one.

    Helm requires Semantic Versioning, in which 1.0.1.dev0 is 1.0.1-dev.0.
    """
    chart = re.sub(r"\.dev(\d+)$", r"-dev.\1", __version__)
    text = CHART_VERSION.sub(f"version: {chart}", text)
    return VERSION.sub(lambda found: found[1] + __version__, text)


def clients_page(page: Path) -> str:
    """Return a page about client programs, with the current samples and test results."""

    def sample(found: re.Match[str]) -> str:
        text = (PROGRAMS / f"{found[2]}{found[3]}").read_text(encoding="utf-8")
        region = REGION.search(text)
        shown = textwrap.dedent(region[1] if region else text).strip("\n")
        return f"{found[1]}\n```{FENCES.get(found[3], found[3][1:])}\n{shown}\n```\n"

    language = "ru" if page.name.endswith(".ru.md") else "en"
    text = SAMPLE.sub(sample, page.read_text(encoding="utf-8"))
    text = TABLE.sub(lambda found: found[1] + clients_rows(language), text)
    return FIELDS.sub(lambda found: found[1] + fields_row(language), text)


def clients_rows(language: str) -> str:
    """Return the rows of the table: programs with the same result of each step share a row.

    The last column is about the gateway as the HTTP proxy of the program.
    """
    results = json.loads((PROGRAMS.parent / "results.json").read_text(encoding="utf-8"))
    rows: dict[str, list[str]] = {}
    for name, ways in results.items():
        direct, by_proxy = ways["direct"], ways.get("proxy", {"proxy": "none"})
        other = [word for step, word in by_proxy.items() if word != direct.get(step, word)]
        said = {**direct, "proxy": (*other, by_proxy["proxy"])[0]}
        rows.setdefault(" | ".join(WORDS[language][said[step]] for step in STEPS), []).append(name)
    return "".join(f"| {', '.join(names)} | {row} |\n" for row, names in rows.items())


def fields_row(language: str) -> str:
    """Return the row of the fields that all programs together send, by what becomes of them."""
    results = json.loads((PROGRAMS.parent / "results.json").read_text(encoding="utf-8"))
    fates: dict[str, dict[str, str]] = {"sent": {}, "used": {}, "told": {}}
    for ways in results.values():
        for name, fate in ways["fields"].items():
            # Of two spellings the one with more capital letters, which sort before the others.
            known = fates[fate].setdefault(name.lower(), name)
            fates[fate][name.lower()] = min(known, name, name.title() if name.islower() else name)
    fates["used"] = {key: fates["used"][key] for key in fates["used"] if key not in fates["sent"]}
    cells = (", ".join(f"`{names[key]}`" for key in sorted(names)) for names in fates.values())
    programs = {"en": f"{len(results)} programs above", "ru": f"{len(results)} программ выше"}
    return f"| {programs[language]} | {' | '.join(cell or '–' for cell in cells)} |\n"


def main(arguments: list[str]) -> int:
    """Return exit code 0, or 1 when `--check` finds an outdated file."""
    stale = []
    for path, content in documents().items():
        if not path.exists() or path.read_text(encoding="utf-8") != content:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(content, encoding="utf-8")
    verb = "is out of date: run `make docs`" if "--check" in arguments else "written"
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)} {verb}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
