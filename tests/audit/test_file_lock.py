"""Several processes that write their audit lines to one pipe."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

WRITER = """
import sys
from gateway.audit.sink import DescriptorSink
from gateway.audit.file_lock import LockedSink

sink = LockedSink(DescriptorSink(int(sys.argv[2])), int(sys.argv[3]))
for number in range(int(sys.argv[4])):
    # Longer than a pipe takes at once, so that a write needs several turns of the reader.
    sink.write([sys.argv[1].encode() * 30_000 + b"\\n"] * 5)
"""


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """Yield a pipe without a reading thread."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


@pytest.fixture
def turn() -> Iterator[int]:
    """The file whose lock tells whose turn it is."""
    descriptor = os.memfd_create("turns")
    yield descriptor
    os.close(descriptor)


def write(letter: str, to: int, turn: int, times: int) -> subprocess.Popen[bytes]:
    """A process that writes lines of this letter."""
    command = [sys.executable, "-c", WRITER, letter, str(to), str(turn), str(times)]
    return subprocess.Popen(command, pass_fds=(to, turn))


def test_lines_of_several_processes_are_not_torn(pipe: tuple[int, int], turn: int) -> None:
    """Every line comes from one writer, and none is missing."""
    reading, writing = pipe
    writers = [write(letter, writing, turn, 10) for letter in "abc"]
    os.close(writing)
    received = b""
    while piece := os.read(reading, 1 << 16):
        received += piece
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    lines = received.splitlines()
    assert sorted(lines) == sorted(letter * 30_000 for letter in (b"a", b"b", b"c")
                                   for _ in range(50))  # fmt: skip


def test_half_a_line_of_a_killed_process_spoils_no_other(pipe: tuple[int, int], turn: int) -> None:
    """Who writes next ends the line that was begun; its own lines are whole."""
    reading, writing = pipe
    killed = write("x", writing, turn, 1)
    select.select([reading], [], [])
    while not _is_full(writing):
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    next_one = write("y", writing, turn, 2)
    os.close(writing)
    received = b""
    while piece := os.read(reading, 1 << 16):
        received += piece
    assert next_one.wait() == 0
    lines = received.splitlines()
    assert [line for line in lines if b"y" in line] == [b"y" * 30_000] * 10
    assert any(0 < len(line) < 30_000 for line in lines)


def _is_full(writing: int) -> bool:
    return not select.select([], [writing], [], 0)[1]
