"""The thread that writes log lines, over pipes that are read late or never."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator
from queue import Queue
from typing import Any

import pytest

from gateway.telemetry import logs
from gateway.telemetry.log_repetition import LogRateLimit
from gateway.telemetry.logs import BackgroundHandler
from tests.doubles.clock import FakeClock
from tests.telemetry.conftest import Pipe

Make = Callable[..., BackgroundHandler]


@pytest.fixture
def make() -> Iterator[Make]:
    """Return a function that makes handlers which end with the test."""
    made: list[BackgroundHandler] = []

    def one(fd: int, limit: LogRateLimit | None = None, **limits: int) -> BackgroundHandler:
        made.append(BackgroundHandler(fd, limit or LogRateLimit(), **limits))
        return made[-1]

    yield one
    for each in made:
        each.close()
        # Nothing may be written any more when another test has the descriptor's number.
        each.flush()


def log(handler: BackgroundHandler, text: str, name: str = "gateway.x") -> bytes:
    handler.handle(logging.LogRecord(name, logging.INFO, "", 0, "%s", (text,), None))
    return text.encode() + b"\n"


def log_many(handler: BackgroundHandler, count: int) -> list[bytes]:
    return [log(handler, f"line {number}") for number in range(count)]


def dropped(count: int) -> bytes:
    return b"%d log lines were dropped: they were not read\n" % count


def assert_complete(written: bytes, lines: list[bytes]) -> None:
    """Check that these lines were written, or their number reported where they are missing."""
    rest = list(lines)
    for line in written.splitlines(keepends=True):
        gap = re.fullmatch(re.escape(dropped(0)).replace(b"0", rb"(\d+)", 1), line)
        if gap is None:
            assert line == rest.pop(0)
        else:
            assert int(gap[1]) > 0
            del rest[: int(gap[1])]
    assert rest == []


def read(pipe: Pipe, size: int) -> bytes:
    """Return so many octets of the pipe."""
    found = b""
    while len(found) < size:
        found += os.read(pipe.reader, size - len(found))
    return found


def test_lines_are_written_in_order(make: Make, pipe: Pipe) -> None:
    handler = make(pipe.writer)
    lines = log_many(handler, 1000)
    handler.flush()
    assert pipe.read_to_end() == b"".join(lines)


@pytest.mark.parametrize("room", [{"max_lines": 20}, {"max_bytes": 200}])
def test_lines_beyond_a_full_pipe_are_dropped_and_reported(
    make: Make, pipe: Pipe, room: dict
) -> None:
    """The report stands where they would, whether others follow or not."""
    filling = pipe.fill()
    handler = make(pipe.writer, **room)
    lines = log_many(handler, 500)
    read(pipe, filling)
    handler.flush()
    lines.append(log(handler, "later"))
    handler.flush()
    lines += log_many(handler, 10)
    handler.flush()
    written = pipe.read_to_end()
    assert 10 < written.count(b"line") < 60
    assert_complete(written, lines)


def test_dropped_lines_are_reported_without_a_later_line(make: Make, pipe: Pipe) -> None:
    """Once the queue is empty; each gap once."""
    handler = make(pipe.writer, max_lines=20)
    for _ in range(2):
        filling = pipe.fill()
        lines = log_many(handler, 50)
        read(pipe, filling)
        handler.flush()
        assert_complete(pipe.read(), lines)


def test_a_broken_pipe_does_not_fail_logging(make: Make, pipe: Pipe) -> None:
    os.close(pipe.reader)
    pipe.reader = -1
    handler = make(pipe.writer)
    log_many(handler, 10)
    handler.flush()


def test_lines_lost_on_a_full_disk_are_reported_later(
    make: Make, pipe: Pipe, full_device: int
) -> None:
    """Before the first line that is written again."""
    handler = make(full_device)
    log_many(handler, 10)
    handler.flush()
    os.dup2(pipe.writer, full_device)
    later = log(handler, "later")
    handler.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), full_device)
    assert pipe.read_to_end() == dropped(10) + later


def test_a_non_blocking_pipe_loses_no_line(make: Make, pipe: Pipe) -> None:
    """Another process may have made it so."""
    os.set_blocking(pipe.writer, False)
    handler = make(pipe.writer)
    line = "-" * 100_000
    for _ in range(5):
        log(handler, line)
    assert read(pipe, 5 * 100_001) == 5 * (line.encode() + b"\n")


def test_a_summary_is_written_without_a_later_line(make: Make, pipe: Pipe) -> None:
    clock = FakeClock()
    handler = make(pipe.writer, LogRateLimit(burst=1, clock=clock))
    line = log(handler, "again", "asyncio")
    assert read(pipe, len(line)) == line
    log(handler, "again", "asyncio")
    clock.now += 10
    summary = "left out: …\n".encode()
    assert read(pipe, len(summary)) == summary


def test_closing_writes_the_rest_and_ends_the_thread(make: Make, pipe: Pipe) -> None:
    """Also after a full queue."""
    threads = threading.active_count()
    filling = pipe.fill()
    handler = make(pipe.writer, max_lines=20)
    lines = log_many(handler, 30)
    handler.close()
    assert threading.active_count() == threads + 1
    kept = b"".join(lines[:20])
    assert read(pipe, filling + len(kept))[filling:] == kept
    for thread in threading.enumerate():
        if thread.name == "log":
            thread.join(60)
    assert threading.active_count() == threads


def test_a_line_lost_while_the_queue_is_found_empty_is_reported_once(
    make: Make, pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [b"first\n"]

    class BusyQueue(Queue[Any]):
        """A queue that gets a line, and loses one, just after the thread found it empty."""

        def empty(self) -> bool:
            is_empty = super().empty()
            if is_empty and threading.current_thread().name == "log" and len(lines) == 1:
                lines.append(b"")
                other = threading.Thread(target=log_two)
                other.start()
                other.join()
            return is_empty

    def log_two() -> None:
        lines[1:] = [log(handler, "fits"), log(handler, "x" * 200)]

    monkeypatch.setattr(logs, "Queue", BusyQueue)
    handler = make(pipe.writer, max_bytes=100)
    log(handler, "first")
    handler.flush()
    assert_complete(pipe.read_to_end(), [lines[0], lines[2], lines[1]])
