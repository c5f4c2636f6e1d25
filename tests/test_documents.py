"""The documents: generated ones are up to date, and names in others exist."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import click
import pytest

from gateway import __version__
from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.audit.audit_trail import exchange_record
from gateway.cli.main import cli
from gateway.errors import REASONS
from gateway.exchange import Exchange
from gateway.guidance import REASON_GUIDANCE
from gateway.i18n import LANGUAGES
from gateway.telemetry.metrics import Metrics
from tests.config.test_schema import table_of_settings
from tests.doubles.gateway_states import StatusSources
from tests.environments import run
from tests.test_architecture import FLOORS, SANDBOX, floor_of, trees
from tests.tracked_files import tracked_files

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *tracked_files("docs/*.md")]
LATER = "not available in this version"


def test_generated_documents_are_up_to_date() -> None:
    """Settings, errors and config/reference.yaml."""
    checked = run([sys.executable, ROOT / "docs" / "generate.py", "--check"])
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def test_the_changelog_begins_with_this_version() -> None:
    """A version with a day is a release; until then the section has no day."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+)\] - (.+)$", text, re.MULTILINE)
    version, development, _ = __version__.partition(".dev")
    assert sections[0][0] == version
    assert re.fullmatch("Unreleased" if development else r"20\d\d-\d\d-\d\d", sections[0][1])
    assert all(day != "Unreleased" for _, day in sections[1:])


# What speaks of the gateway as it was. Git has that; users read what is.
FORMER = re.compile(
    r"\b(?:formerly|previously|deprecat\w+|backwards?[- ]compat\w+|used to (?:be|have)"
    r"|since (?:version )?\d+\.\d|(?:was|were|been) (?:called|renamed)"
    r"|former (?:name|key|setting|version)s?)\b",
    re.IGNORECASE,
)


@pytest.mark.parametrize(
    "name", ["gateway", "config", "deploy", "docs", "benchmarks", ".github", ".ci", "."]
)
def test_nothing_speaks_of_a_former_version(name: str) -> None:
    texts = {".conf", ".html", ".json", ".md", ".po", ".ps1", ".py", ".service", ".sh", ".tpl"}
    texts |= {".txt", ".xml", ".yaml", ".yml", *([""] if name == ".ci" else [])}
    inside = tracked_files(f"{name}/*")
    files = inside or [each for each in tracked_files() if each.parent == ROOT]
    lines = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for file in files
        if file.suffix in texts
        for line in file.read_text("utf-8").splitlines()
    ]
    assert len(lines) > 50
    assert [line for line in lines if FORMER.search(line)] == []


PAGES = ("clients.md", "clients.ru.md")
# What is no sample by itself.
SHARED = {"serve", "Serve", "raw"}


@pytest.mark.parametrize("name", PAGES)
def test_every_tested_program_is_shown(name: str) -> None:
    """Each program of tests/legacy is a sample or a link, in the same order in both languages."""
    shown = [
        re.findall(
            r"<!-- sample: (\S+) -->|\]\(\S+/programs/(\S+)\)",
            (ROOT / "docs" / page).read_text(encoding="utf-8"),
        )
        for page in (name, PAGES[0])
    ]
    programs = tracked_files("tests/legacy/programs/*.*")
    assert sorted(sample or link for sample, link in shown[0]) == sorted(
        each.name for each in programs if each.stem not in SHARED
    )
    assert shown[0] == shown[1]


def paragraphs(path: Path) -> list[str]:
    """Return a document's paragraphs, each on one line or wrapped by hand."""
    return re.split(r"\n(?=\n|[|*#])", path.read_text(encoding="utf-8"))


def anchors(path: Path) -> list[str]:
    """Return a document's anchors, made of its headings as GitHub and the site make them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", without_blocks(path), re.MULTILINE):
        text = re.sub(r"\]\([^)]*\)", "", heading).strip().lower()
        slug = re.sub(r"[^\w -]", "", text).replace(" ", "-")
        found.append(f"{slug}-{found.count(slug)}" if slug in found else slug)
    return found


def without_blocks(path: Path) -> str:
    """Return a document's text without blocks of code, whose comments are no headings."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_relative_link_and_anchor_exists(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_blocks(path)):
        name, _, section = target.partition("#")
        file = path.parent / name if name else path
        assert file.exists(), target
        assert not section or section in anchors(file), target


def named_commands(texts: Iterable[str]) -> set[str]:
    """Return the commands that texts name, except those that are not available yet."""
    command = re.compile(r"(?<!-u )dhp-gateway ([a-z]+(?:-[a-z]+)*)")
    named = (command.findall(text) for text in texts if LATER not in text)
    return {each for commands in named for each in commands}


def test_every_named_command_exists() -> None:
    """In documents, settings files and texts."""
    commands = set(cli.list_commands(click.Context(cli)))
    written = [text for path in DOCUMENTS for text in paragraphs(path)]
    written += [path.read_text(encoding="utf-8") for path in tracked_files("config/*.yaml")]
    records = REASON_GUIDANCE.values()
    texts = [text for each in records for text in (each.remedy, each.text, each.read_text) if text]
    written += [text.in_language(each) for text in texts for each in LANGUAGES]
    found = named_commands(written)
    assert {"run", "doctor", "token", "check", "sandbox"} <= found
    assert found <= commands


def test_every_named_admin_page_exists() -> None:
    """Or is said to be not available yet."""
    quiet = StatusSources("quiet")
    application = build_application(
        metrics=quiet, health=quiet, status=quiet, operators=Operators(())
    )
    pages = {resource.canonical for resource in application.router.resources()}
    named = set()
    for name in ("docs/settings.md", "docs/operations.md", "docs/monitoring.md", "README.md"):
        for text in paragraphs(ROOT / name):
            if LATER not in text.lower():
                named |= set(
                    re.findall(r"/(?:livez|readyz|metrics|status[.\w]*|\.well-known/\S+json)", text)
                )
    assert {"/livez", "/readyz", "/metrics"} <= named
    assert named <= pages


def test_every_metric_is_explained() -> None:
    """The list of monitoring.md has exactly the gateway's metrics."""
    metrics = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
        if family.name.startswith("dhp_gateway_")
    }
    page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
    listed = re.findall(r"^\* (`dhp_gateway_\w+`(?:, `\w+`)*)", page, re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", "".join(listed))) == metrics


def test_every_field_of_the_audit_is_explained() -> None:
    """The list of audit.md has exactly the fields of a record, in order."""
    exchange = Exchange("id", 0.0, 0.0)
    exchange.is_user_asserted, exchange.purpose, exchange.token_id = True, "TREAT", "a jti"
    record = exchange_record(exchange, "")
    page = (ROOT / "docs" / "audit.md").read_text(encoding="utf-8")
    section = page.partition("\n## Records\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\* (`.*?`):", section, re.MULTILINE)
    assert re.findall(r"`(\w+)`", "".join(rows)) == list(record)


GENERATED = {"settings.md", "errors.md"}
BY_HAND = [path for path in DOCUMENTS if path.name not in GENERATED]
DEFAULTS = {
    key: cells[1].strip("`")
    for key, cells in table_of_settings("en").items()
    if re.fullmatch(r"[\w.]+", key)
}
SECTIONS = "|".join({key.partition(".")[0] for key in DEFAULTS if "." in key})
SETTINGS = {
    ".".join(key.split(".")[: n + 1]) for key in DEFAULTS for n in range(key.count(".") + 1)
}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FILES = (".jsonl", ".log", ".db", ".py", ".yaml")
TEST = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


@cache
def functions(file: str) -> set[str]:
    """Return the names of a test file's functions; none if there is no such file."""
    if not (ROOT / file).exists():
        return set()
    return {
        node.name
        for node in ast.walk(ast.parse((ROOT / file).read_text("utf-8")))
        if isinstance(node, FUNCTION)
    }


@pytest.mark.parametrize("path", BY_HAND, ids=lambda path: path.name)
def test_every_named_setting_default_reason_and_test_exists(path: Path) -> None:
    text = path.read_text("utf-8")
    named = set(re.findall(rf"`((?:{SECTIONS})\.[a-z][a-z_.]*)(?:: [^`]*)?`", text))
    assert [each for each in named - SETTINGS if not each.endswith(FILES)] == []
    for key, default in re.findall(r"default `([a-z_.]+): ([^`]+)`", text):
        assert (key, DEFAULTS[key]) == (key, default)
    assert set(re.findall(r"X-Gateway-Error[`:]*:? `?([a-z]+(?:-[a-z]+)*)`", text)) <= set(REASONS)
    assert [each for each in TEST.findall(text) if each[1] not in functions(each[0])] == []


# A paragraph is a line. Who adds words to the documents leaves out others.
MAX_LINE = 400
MAX_WORDS = 42_000
READ = [*DOCUMENTS, *tracked_files(".github/*.md")]


@pytest.mark.parametrize("path", READ, ids=lambda path: path.name)
def test_no_line_is_longer_than_400_characters(path: Path) -> None:
    lines = enumerate(path.read_text("utf-8").splitlines(), 1)
    assert {number: len(line) for number, line in lines if len(line) > MAX_LINE} == {}


def test_the_english_documents_have_at_most_42_000_words() -> None:
    """Without blocks of code, bars of tables and targets of links."""
    texts = [without_blocks(path) for path in READ if not re.search(r"\.(ru|uz)\.md$", path.name)]
    words = [re.findall(r"\S*\w\S*", re.sub(r"\]\(.*?\)", "]", text)) for text in texts]
    assert sum(map(len, words)) <= MAX_WORDS


def test_the_architecture_shows_the_floors() -> None:
    """The table lists every part, in the order of imports."""
    table = (ROOT / "docs" / "architecture.md").read_text("utf-8").partition("## The floors")[2]
    rows = re.findall(r"^\| (\d?) \| `(\w+)` \| ", table.partition("\n## ")[0], re.MULTILINE)
    parts = [(str(floor_of(part)), part) for floor in FLOORS for part in floor]
    assert rows == [*parts, ("", SANDBOX)]


def test_files_that_the_architecture_names_exist() -> None:
    """Below gateway/, or below tests/."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    names = re.findall(r"`((?:[a-z_]+/)*[a-z_]+\.py|(?:[a-z_]+/)+)`", text)
    assert len(names) > 20
    places = (ROOT, ROOT / "gateway", ROOT / "gateway/config", ROOT / "tests")
    assert [each for each in names if not any((place / each).exists() for place in places)] == []


def test_classes_that_the_architecture_names_exist() -> None:
    """With the methods that it names."""
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    names = re.findall(r"`([A-Z][a-z]\w+)(?:\.(\w+))?(?:\(.*\))?`", text)
    assert len(names) > 40
    classes = {
        node.name: {each.name for each in ast.walk(node) if isinstance(each, FUNCTION)}
        for tree in trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    assert [
        f"{name}.{method}"
        for name, method in names
        if name not in classes or (method and method not in classes[name])
    ] == []


def numbered(page: str) -> dict[str, str]:
    """Return the rows of a page's numbered lists by number, each number once."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    rows = re.findall(r"^(\d+)\. (.+)$", text, re.MULTILINE)
    assert [number for number, _ in rows] == [str(n + 1) for n in range(len(rows))]
    return dict(rows)


def test_every_attack_has_a_test() -> None:
    """Each row of the security model has one row of tests, and a defence."""
    attacks, tests = numbered("security.md"), numbered("evidence.md")
    assert len(attacks) > 60
    assert attacks.keys() == tests.keys()
    assert [row for row in attacks.values() if not re.match(r"\*\*.+\*\*: .", row)] == []
    assert [row for row in tests.values() if not TEST.search(row)] == []
