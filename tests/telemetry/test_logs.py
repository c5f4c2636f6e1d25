"""Log lines as they are in the stream."""

from __future__ import annotations

import ast
import functools
import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.secret import Secret
from gateway.telemetry.log_repetition import LogRateLimit
from gateway.telemetry.logs import LogEvent, configure, get_logger

ROOT = Path(__file__).parents[2]
PLACEHOLDER = re.compile(r"%(?:\([^)]*\))?[-#0 +]*[\d*]*(?:\.[\d*]+)?([a-zA-Z])")


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


class Logs:
    """The configured logs and what they wrote."""

    def __init__(self) -> None:
        self.stream = io.StringIO()
        self._undo: list[Callable[[], None]] = []

    def configure(self, level: str = "info", fmt: Any = "json", stream: Any = None) -> None:
        self.stream = stream or self.stream
        self._undo.append(configure(level, fmt, self.stream))

    def undo(self) -> None:
        while self._undo:
            self._undo.pop()()

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def logs() -> Iterator[Logs]:
    logs = Logs()
    yield logs
    logs.undo()


def test_a_json_line_has_time_level_logger_and_event_first(logs):
    logs.configure()
    get_logger("gateway.x").warning("token refused", credential="default", wait=1.5)
    [line] = logs.lines
    assert list(line) == ["timestamp", "level", "logger", "event", "credential", "wait"]
    assert list(line.values())[1:] == ["warning", "gateway.x", "token refused", "default", 1.5]
    assert line["timestamp"].endswith("Z")


def test_auto_is_text_on_a_terminal_and_json_elsewhere(logs):
    logs.configure(fmt="auto")
    get_logger("gateway.x").info("one")
    assert logs.lines[0]["event"] == "one"
    logs.undo()
    logs.configure(fmt="auto", stream=Terminal())
    get_logger("gateway.x").info("two", credential="default")
    assert not logs.text.startswith("{")
    assert "two" in logs.text
    assert "credential" in logs.text


def test_arguments_are_filled_in_and_fields_stay_apart(logs):
    logs.configure()
    said = []
    watching = logging.Handler()
    watching.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("gateway.x").addHandler(watching)
    get_logger("gateway.x").warning("%s is %d %%", "x", 3, request_id="r-1")
    logging.getLogger("gateway.x").removeHandler(watching)
    assert said == ["x is 3 %"]
    assert logs.lines[0]["event"] == "x is 3 %"
    assert logs.lines[0]["request_id"] == "r-1"


def test_records_of_the_standard_library_have_the_same_form(logs):
    logs.configure()
    logging.getLogger("aiohttp.server").error("Error handling request from %s", "10.0.0.1")
    [line] = logs.lines
    assert line["logger"] == "aiohttp.server"
    assert line["level"] == "error"
    assert line["event"] == "Error handling request from 10.0.0.1"


def test_lower_levels_are_not_written(logs):
    logs.configure("warning")
    get_logger("gateway.x").info("no")
    logging.getLogger("asyncio").info("no")
    get_logger("gateway.x").warning("yes")
    assert [line["event"] for line in logs.lines] == ["yes"]


def test_an_unknown_level_is_a_value_error(logs):
    """Nothing is configured."""
    before = logging.getLogger().handlers[:]
    with pytest.raises(ValueError, match="LOUD"):
        logs.configure("loud")
    assert logging.getLogger().handlers == before


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_secrets_and_patient_data_are_masked_everywhere(logs, fmt):
    """Texts, fields, nested values, exceptions, and records of libraries."""
    logs.configure(fmt=fmt)
    log = get_logger("gateway.x")
    try:
        raise ValueError("cannot GET http://h/Patient?identifier=30101901234567 with Bearer tok3n")
    except ValueError as error:
        log.exception("failed for 30101901234567", error=error, key=Secret("s3cr3t"))
        logging.getLogger("asyncio").exception("lost %s", {"password": "hunter2"})
    log.info("x", deep={"a": ["AA1234567"]}, client_secret="hunter3")
    for planted in ("30101901234567", "tok3n", "s3cr3t", "AA1234567", "hunter2", "hunter3"):
        assert planted not in logs.text
    assert logs.text.count("ValueError: cannot GET http://h/Patient?***") == 2


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_tracebacks_show_no_local_variables(logs, fmt):
    logs.configure(fmt=fmt)

    def fail() -> None:
        body = "".join(["pati", "ent-data"])
        raise RuntimeError(len(body))

    try:
        fail()
    except RuntimeError:
        get_logger("gateway.x").exception("failed")
    assert "in fail" in logs.text
    assert "patient-data" not in logs.text


@pytest.mark.parametrize("stream", [None, Terminal()], ids=["file", "terminal"])
def test_the_console_has_colours_on_a_terminal_only(logs, stream):
    logs.configure(fmt="console", stream=stream)
    get_logger("gateway.x").warning("token refused", credential="default")
    assert ("\x1b[" in logs.text) is (stream is not None)
    plain = re.sub(r"\x1b\[\d*m", "", logs.text)
    assert "token refused" in plain
    assert "credential=default" in plain


def test_a_text_cannot_forge_lines_or_drive_the_terminal(logs):
    """Control characters are escaped."""
    logs.configure(fmt="console")
    logging.getLogger("aiohttp.server").error("bad %s", "x\n2026 [info] all is well\x1b[2J")
    assert "\x1b" not in logs.text
    assert len(logs.text.splitlines()) == 1


def test_values_that_json_cannot_hold_are_written_as_text(logs):
    logs.configure()
    get_logger("gateway.x").info("odd", raw="\udcff", huge=2**80)
    [line] = logs.lines
    assert line["raw"] == "\\udcff"
    assert line["huge"] == str(2**80)


def test_configuring_again_replaces_and_undoing_restores(logs, caplog):
    caplog.set_level(35)
    root = logging.getLogger()
    before = (35, root.handlers[:])
    logs.configure("debug")
    logs.configure("info")
    get_logger("gateway.x").info("once")
    assert len(logs.lines) == 1
    logs.undo()
    assert (root.level, root.handlers) == before


def test_a_broken_stream_does_not_break_the_program(logs, capsys):
    logs.configure()
    logs.stream.close()
    get_logger("gateway.x").error("lost")
    assert capsys.readouterr() == ("", "")


def test_without_configuration_nothing_is_written_to_stdout(capsys, caplog):
    """It belongs to the audit."""
    get_logger("gateway.x").warning("early")
    assert capsys.readouterr().out == ""
    assert len(caplog.records) == 1


def test_the_number_of_suppressed_lines_is_written(logs):
    logs.configure()
    record = logging.LogRecord("asyncio", logging.ERROR, "", 1, "accept failed", None, None)
    record.suppressed = 12
    logging.getLogger("asyncio").handle(record)
    assert logs.lines[0]["suppressed"] == 12


@functools.cache
def every_log_call() -> dict[str, ast.Call]:
    """Return every call of a logger in the gateway's code, by its place."""
    return {
        f"{path.relative_to(ROOT)}:{call.lineno}": call
        for path in sorted((ROOT / "gateway").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "_log"
    }


def templates_of(call: ast.Call) -> tuple[list[str], int]:
    """Return the texts that a call of a logger may have, and the number of their arguments."""
    positional = call.args[1:] if ast.unparse(call.func) == "_log.log" else call.args
    template, *arguments = positional
    if isinstance(template, ast.Name):
        # One of the texts that are assigned to this name somewhere: they have no placeholder.
        return [], len(arguments)
    parts = template.values if isinstance(template, ast.JoinedStr) else [template]
    constant = [str(part.value) for part in parts if isinstance(part, ast.Constant)]
    return ["".join(constant)], len(arguments)


def test_each_log_call_fills_its_placeholders():
    for place, call in every_log_call().items():
        templates, count = templates_of(call)
        for template in templates:
            assert len(PLACEHOLDER.findall(template.replace("%%", ""))) == count, place


@pytest.mark.parametrize("fmt", ["json", "console"])
def test_no_line_shows_a_template(fmt, logs):
    """Nor the line that reports suppressed ones."""
    logs.configure(fmt=fmt)
    for place, call in every_log_call().items():
        templates, count = templates_of(call)
        limit = LogRateLimit(burst=1, clock=lambda: 0.0)
        before = logs.stream.tell()
        for template in templates:
            kinds = PLACEHOLDER.findall(template.replace("%%", ""))
            values = ["x" if kind in "sr" else 7 for kind in kinds[:count]]
            for _ in range(3):
                event = LogEvent({"event": template, "request_id": "r-1"}, tuple(values))
                record = logging.LogRecord("gateway.pipeline.x", 40, "", 1, event, (), None)
                record._logger = record._name = None
                limit.filter(record)
            for left_out in limit.summaries(at_end=True):
                logging.getLogger("gateway.x").handle(left_out)
                get_logger("gateway.x").error(template, *values)
        assert logs.stream.tell() > before or not templates, place
    assert not re.search(r"%[sdgr]", logs.text)


@pytest.mark.parametrize(
    ("template", "arguments", "said"),
    [
        ("kept in the outbox as %s", ("42",), "kept in the outbox as …"),
        ("%d of %.1f: %-8s|%%|%r", (1, 2.5, "a", "b"), "… of …: …|%|…"),
        ("%(a)s is 5%", (), "%(a)s is 5%"),
        ("%s", ("first",), "…"),
    ],
)
@pytest.mark.parametrize("of_a_library", [False, True], ids=["own", "library"])
def test_suppressed_messages_are_named_without_their_values(
    of_a_library, template, arguments, said, logs
):
    logs.configure()
    name = "gateway.pipeline.x"
    log = logging.getLogger(name) if of_a_library else get_logger(name)
    for _ in range(12):
        log.error(template, *arguments)
    for handler in logging.getLogger().handlers:
        for limit in handler.filters:
            if isinstance(limit, LogRateLimit):
                for summary in limit.summaries(at_end=True):
                    handler.handle(summary)
    assert logs.lines[-1]["event"] == f"left out: {said}"
    assert logs.lines[-1]["suppressed"] == 2


PROGRAM = """
import logging, sys
from gateway.telemetry.logs import configure
configure("info", "json")
for number in range(2000):
    logging.getLogger("gateway.x").info("line %d", number)
for number in range(15):
    logging.getLogger("gateway.pipeline.x").info("again")
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise ValueError", "1 / 0"])
def test_everything_is_written_before_the_process_ends(end):
    """However it ends."""
    ended = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}\n{end}"], stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines() if line.startswith(b"{")]
    events = [line["event"] for line in lines]
    assert events[:2000] == [f"line {number}" for number in range(2000)]
    assert events[2000:] == 10 * ["again"] + ["left out: again"]
    assert lines[-1]["suppressed"] == 5


def test_a_traceback_follows_the_log():
    ended = subprocess.run(
        [sys.executable, "-c", f"{PROGRAM}\n1 / 0"], stderr=subprocess.PIPE, cwd=ROOT, check=False
    )
    log, _, traceback = ended.stderr.partition(b"Traceback")
    assert all(json.loads(line) for line in log.splitlines())
    assert b"{" not in traceback
    assert traceback.endswith(b"\nZeroDivisionError: division by zero\n")


def test_undoing_restores_the_exception_hooks():
    before = sys.excepthook
    undo = configure("info", "json")
    meanwhile = sys.excepthook
    undo()
    assert meanwhile is not before
    assert sys.excepthook is before


def test_a_process_ends_with_a_full_pipe_for_its_log(pipe):
    pipe.fill()
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], stderr=pipe.writer, cwd=ROOT, check=False
    )
    assert ended.returncode == 0
