"""Prints what tests showed of servers of others as tables: rows are what, columns are servers.

The form is that of Markdown, for docs/interoperability.md.

A test names its cell by two marks, `row(what)` and `column(table, server)`; with `describe` it says
which version runs, with `note` under which conditions it passed, with `not_offered` why there is
nothing to pass. All of it travels in the `user_properties` of reports, as with pytest-xdist the
process that prints is not the one that tests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import pytest

MARKERS = (
    "row(what): the row of a test in the table of servers of others",
    "column(table, server): the table and the column of a test",
)
_WIDTH = 100


def place(item: pytest.Item) -> None:
    """Put the cell that the marks of a test name into its reports."""
    row, column = item.get_closest_marker("row"), item.get_closest_marker("column")
    if row is not None and column is not None:
        item.user_properties.append(("cell", [*column.args, *row.args]))


def describe(node: pytest.Item, text: str) -> None:
    """Say which version of the server runs, and how long its start took."""
    node.user_properties.append(("server", text))


def note(node: pytest.Item, text: str) -> None:
    """Say under which conditions the row passed, or what of the server's is amiss."""
    node.user_properties.append(("note", text))


def not_offered(node: pytest.Item, reason: str) -> None:
    """Say why the row cannot be asked of this server; the test then returns."""
    node.user_properties.append(("not offered", reason))


@dataclass(slots=True)
class _Cell:
    faults: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed: bool = False

    def add(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.faults.append(_reason(report))
        elif report.when == "call":
            absent = _said(report, "not offered")
            self.absent += absent
            self.notes += _said(report, "note")
            self.passed |= report.passed and not absent
        if report.skipped:
            self.absent.append(_reason(report))

    def __str__(self) -> str:
        """Return the word of the cell, with what is to be added behind a colon."""
        if self.faults:
            word, reasons = "FAULT", self.faults
        elif self.passed:
            word, reasons = "passed", self.notes + self.absent
        else:
            word, reasons = "not offered", self.absent
        return ": ".join([word, *(["; ".join(dict.fromkeys(reasons))] if reasons else [])])


@dataclass(slots=True)
class _Table:
    cells: dict[str, dict[str, _Cell]] = field(default_factory=dict)
    servers: dict[str, str] = field(default_factory=dict)

    def add(self, row: str, server: str, report: pytest.TestReport) -> None:
        self.cells.setdefault(row, {}).setdefault(server, _Cell()).add(report)
        for text in _said(report, "server"):
            self.servers[server] = text
        self.servers.setdefault(server, "")

    def lines(self, name: str) -> Iterator[str]:
        footnotes: list[str] = []

        def short(text: str) -> str:
            word, colon, reason = text.partition(": ")
            if not colon:
                return word
            if reason not in footnotes:
                footnotes.append(reason)
            return f"{word} ({footnotes.index(reason) + 1})"

        columns = sorted(self.servers)
        rows = [[name, *columns], ["", *(self.servers[each] for each in columns)]]
        for row in sorted(self.cells):
            cells = self.cells[row]
            shown = (short(str(cells[each])) if each in cells else "-" for each in columns)
            rows.append([row, *shown])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        rows.insert(1, ["-" * width for width in widths])
        for row_cells in rows:
            pairs = zip(row_cells, widths, strict=True)
            yield f"| {' | '.join(cell.ljust(width) for cell, width in pairs)} |"
        yield ""
        yield from (f"* ({number}) {reason}" for number, reason in enumerate(footnotes, 1))


def _said(report: pytest.TestReport, key: str) -> list[str]:
    return [str(text) for name, text in report.user_properties if name == key]


def _reason(report: pytest.TestReport) -> str:
    if isinstance(report.longrepr, tuple):
        text = report.longrepr[2]
    else:
        crash = getattr(report.longrepr, "reprcrash", None)
        text = crash.message if crash is not None else report.longreprtext
    return " ".join(text.split())[:_WIDTH]


def lines(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """Return the lines of every table that these reports have cells of."""
    tables: dict[str, _Table] = {}
    for report in reports:
        for name, cell in report.user_properties:
            if name == "cell" and isinstance(cell, list | tuple):
                table, server, row = map(str, cell)
                tables.setdefault(table, _Table()).add(row, server, report)
    for name in sorted(tables):
        yield from ("", *tables[name].lines(name))
