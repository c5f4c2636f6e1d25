"""The thread that writes log lines, over pipes that are read late, never or not any more."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

import pytest

from gateway.telemetry.logs import LineWriter
from tests.telemetry.conftest import Pipe

PATIENCE = 20.0


class Notices:
    """Tells in plain text, and has to say what the test puts into `news`."""

    def __init__(self) -> None:
        self.news: list[bytes] = []

    def dropped_lines(self, count: int) -> Iterable[bytes]:
        """As a line."""
        return [b"dropped %d\n" % count]

    def pending_lines(self) -> Iterable[bytes]:
        """What is new."""
        news, self.news = self.news, []
        return news

    def has_pending_soon(self) -> bool:
        """Whether there is something new."""
        return bool(self.news)


Make = Callable[..., LineWriter]


@pytest.fixture
def notices() -> Notices:
    """Nothing to say yet."""
    return Notices()


@pytest.fixture
def make(notices: Notices) -> Iterator[Make]:
    """Makes writers that end with the test."""
    made: list[LineWriter] = []

    def one(fd: int, **limits: int) -> LineWriter:
        made.append(LineWriter(fd, notices, **limits))
        return made[-1]

    yield one
    for each in made:
        each.close()


def put(writer: LineWriter, count: int) -> list[bytes]:
    """Have numbered lines written."""
    lines = [b"line %d\n" % number for number in range(count)]
    for line in lines:
        writer.enqueue(line)
    return lines


def test_lines_come_in_order(make: Make, pipe: Pipe) -> None:
    """All lines are written, in the order they were given."""
    writer = make(pipe.writer)
    lines = put(writer, 1000)
    assert writer.flush(PATIENCE)
    assert pipe.read_to_end() == b"".join(lines)


@pytest.mark.parametrize("room", [{"max_lines": 20}, {"max_bytes": 200}])
def test_what_does_not_fit_is_dropped_and_told(make: Make, pipe: Pipe, room: dict) -> None:
    """A pipe without a reader blocks no logging; once it is read, a line says what is missing."""
    filling = pipe.fill()
    writer = make(pipe.writer, **room)
    lines = put(writer, 500)
    assert not writer.flush(0)
    read = 0
    while read < filling:
        read += len(os.read(pipe.reader, filling - read))
    assert writer.flush(PATIENCE)
    writer.enqueue(b"later\n")
    assert writer.flush(PATIENCE)
    *kept, notice, later = pipe.read_to_end().splitlines(keepends=True)
    assert kept == lines[: len(kept)]
    assert 0 < len(kept) < 30
    assert (notice, later) == (b"dropped %d\n" % (500 - len(kept)), b"later\n")


def test_a_reader_that_leaves_ends_nothing(make: Make, pipe: Pipe) -> None:
    """Lines to a broken pipe are lost, without an error for the logging code."""
    os.close(pipe.reader)
    pipe.reader = -1
    writer = make(pipe.writer)
    put(writer, 10)
    assert writer.flush(PATIENCE)


def test_lost_lines_are_told_when_the_descriptor_works_again(
    make: Make, pipe: Pipe, full_device: int
) -> None:
    """A full disk loses lines; the first one after it says how many."""
    writer = make(full_device)
    put(writer, 10)
    assert writer.flush(PATIENCE)
    os.dup2(pipe.writer, full_device)
    writer.enqueue(b"later\n")
    assert writer.flush(PATIENCE)
    os.dup2(os.open(os.devnull, os.O_WRONLY), full_device)
    assert pipe.read_to_end() == b"later\ndropped 10\n"


def test_a_non_blocking_descriptor_is_waited_for(make: Make, pipe: Pipe) -> None:
    """When another process has made the pipe non-blocking no line is lost or torn."""
    os.set_blocking(pipe.writer, False)
    writer = make(pipe.writer)
    line = b"-" * 100_000 + b"\n"
    for _ in range(5):
        writer.enqueue(line)
    read = b""
    while len(read) < 5 * len(line):
        read += os.read(pipe.reader, 1 << 20)
    assert read == 5 * line


async def test_what_is_due_needs_no_line(
    make: Make, pipe: Pipe, notices: Notices, until: Callable[..., object]
) -> None:
    """While something is expected the thread looks for it by itself."""
    writer = make(pipe.writer)
    notices.news = [b"first\n"]
    writer.enqueue(b"line\n")
    assert writer.flush(PATIENCE)
    assert pipe.read() == b"line\nfirst\n"


def test_closing_writes_the_rest(make: Make, pipe: Pipe) -> None:
    """A closed writer still writes what it has."""
    pipe.fill()
    writer = make(pipe.writer)
    writer.enqueue(b"last\n")
    writer.close()
    read = b""
    while not read.endswith(b"last\n"):
        read += os.read(pipe.reader, 1 << 20)
