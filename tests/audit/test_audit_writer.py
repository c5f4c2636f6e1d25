"""The standard output sink and the writer's thread, on real descriptors."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gateway import os_support
from gateway.audit.audit_writer import DescriptorSink, OnFailure, WriterThread
from tests.audit.conftest import MAX_WAIT
from tests.doubles.waiting import wait_until


class Records:
    """Counts records by outcome (`on_records`)."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def __call__(self, outcome: str, n: int) -> None:
        self.count[outcome] += n


@pytest.fixture
def records() -> Records:
    return Records()


@pytest.fixture
def open_writer(records: Records) -> Callable[..., WriterThread]:
    def build(
        fd: int,
        on_failure: OnFailure = "block",
        retry_delay: float = 0.005,
        **limits: int,
    ) -> WriterThread:
        return WriterThread(
            DescriptorSink(fd),
            on_failure=on_failure,
            on_records=records,
            retry_delay=retry_delay,
            **limits,
        )

    return build


def _lines(count: int, width: int = 100) -> list[bytes]:
    return [f"{{{number:0{width - 3}d}}}\n".encode() for number in range(count)]


def _drain_in_thread(fd: int, size: int) -> tuple[threading.Thread, list[bytes]]:
    chunks: list[bytes] = []

    def drain() -> None:
        while sum(map(len, chunks)) < size:
            chunks.append(os.read(fd, 777))

    thread = threading.Thread(target=drain)
    thread.start()
    return thread, chunks


async def test_writes_lines_in_order_across_batches(pipe, open_writer, records):
    writer = open_writer(pipe.writer)
    writer.enqueue(_lines(3))
    writer.enqueue([b"{next}\n"])
    assert await writer.close(MAX_WAIT) == 0
    assert pipe.read_to_end() == b"".join(_lines(3)) + b"{next}\n"
    assert records.count == {"written": 4}


@pytest.mark.parametrize("on_failure", ["block", "drop"])
async def test_a_blocked_pipe_does_not_block_the_loop(pipe, open_writer, on_failure):
    writer = open_writer(pipe.writer, on_failure, max_bytes=200_000)
    lines = _lines(4000)
    assert writer.is_available
    writer.enqueue(lines)
    assert writer.is_full
    assert writer.is_available == (on_failure == "drop")
    thread, chunks = _drain_in_thread(pipe.reader, 400_000)
    assert await writer.close(MAX_WAIT) == 0
    thread.join()
    assert b"".join(chunks) == b"".join(lines)
    assert writer.is_available
    assert not writer.is_full


async def test_a_pipe_without_progress_is_full_sooner(pipe, records):
    filler = pipe.fill()  # no write can make progress
    now = [0.0]
    writer = WriterThread(
        DescriptorSink(pipe.writer),
        on_failure="block",
        on_records=records,
        stalled_bytes=100_000,
        stuck_after=1.0,
        clock=lambda: now[0],
    )
    writer.enqueue(_lines(1500))
    assert writer.is_available
    now[0] = 1.0
    writer.enqueue(_lines(1))
    assert writer.is_available
    now[0] = 1.5
    writer.enqueue(_lines(1))
    assert not writer.is_available
    thread, chunks = _drain_in_thread(pipe.reader, filler + 150_200)
    assert await writer.close(MAX_WAIT) == 0
    thread.join()
    assert b"".join(chunks)[filler:] == b"".join(_lines(1500) + 2 * _lines(1))
    assert records.count == {"written": 1502}
    assert writer.is_available


async def test_close_ends_at_its_timeout_and_counts_lost_records(pipe, open_writer, records):
    writer = open_writer(pipe.writer)
    writer.enqueue(_lines(4000))
    assert await writer.close(0.05) == 4000
    assert records.count == {"dropped": 4000}
    thread, chunks = _drain_in_thread(pipe.reader, 400_000)  # lets the writer's thread end
    thread.join()
    assert await writer.close(MAX_WAIT) == 0
    assert b"".join(chunks) == b"".join(_lines(4000))
    assert records.count["dropped"] == 4000, "dropped records are counted once"


async def test_with_block_records_are_kept_while_the_disk_is_full(
    pipe, full_device, open_writer, records
):
    writer = open_writer(full_device)
    writer.enqueue(_lines(2))
    await wait_until(lambda: not writer.is_available)
    writer.enqueue([b"{later}\n"])
    os.dup2(pipe.writer, full_device)
    await wait_until(lambda: writer.is_available)
    assert await writer.close(MAX_WAIT) == 0
    os.dup2(pipe.reader, full_device)  # closes this writing end
    assert pipe.read_to_end() == b"".join(_lines(2)) + b"{later}\n"
    assert records.count == {"written": 3}


async def test_with_drop_records_are_counted_while_the_disk_is_full(
    full_device, open_writer, records
):
    writer = open_writer(full_device, "drop")
    writer.enqueue(_lines(2))
    await wait_until(lambda: records.count == {"dropped": 2})
    assert writer.is_available
    assert await writer.close(MAX_WAIT) == 0
    assert records.count == {"dropped": 2}


async def test_a_closed_pipe_is_a_failure(pipe, open_writer, records):
    os.close(pipe.reader)
    pipe.reader = -1
    writer = open_writer(pipe.writer)
    writer.enqueue(_lines(1))
    await wait_until(lambda: not writer.is_available)
    assert await writer.close(0.02) == 1
    assert records.count == {"dropped": 1}


async def test_a_short_write_is_continued_where_it_ended(
    tmp_path: Path, file_size_limit, open_writer
):
    path = tmp_path / "audit"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    file_size_limit(150)
    writer = open_writer(fd)
    writer.enqueue(_lines(4))
    await wait_until(lambda: not writer.is_available)
    assert path.stat().st_size == 150
    file_size_limit(None)
    assert await writer.close(MAX_WAIT) == 0
    os.close(fd)
    assert path.read_bytes() == b"".join(_lines(4))


async def test_a_partly_written_line_is_terminated_before_the_next(
    tmp_path: Path, file_size_limit, open_writer, records
):
    path = tmp_path / "audit"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    file_size_limit(150)
    writer = open_writer(fd, "drop")
    writer.enqueue(_lines(4))
    await wait_until(lambda: records.count.total() == 4)
    writer.enqueue([b"{refused}\n"])
    await wait_until(lambda: records.count.total() == 5)
    file_size_limit(None)
    writer.enqueue([b"{next}\n"])
    assert await writer.close(MAX_WAIT) == 0
    os.close(fd)
    assert path.read_bytes() == b"".join(_lines(4))[:150] + b"\n{next}\n"
    assert records.count == {"written": 2, "dropped": 4}


async def test_a_non_blocking_descriptor_is_waited_for(pipe, open_writer, records, monkeypatch):
    waits: list[int] = []
    wait_writable = os_support._wait_writable

    def count_wait(fd: int) -> None:
        waits.append(fd)
        wait_writable(fd)

    monkeypatch.setattr(os_support, "_wait_writable", count_wait)
    filler = pipe.fill()
    os.set_blocking(pipe.writer, False)
    writer = open_writer(pipe.writer, retry_delay=60)
    lines = _lines(4000)
    writer.enqueue(lines)
    await wait_until(lambda: bool(waits))  # for the first write there was no room (EAGAIN)
    thread, chunks = _drain_in_thread(pipe.reader, filler + 400_000)
    assert await writer.close(MAX_WAIT) == 0
    thread.join()
    assert b"".join(chunks)[filler:] == b"".join(lines)
    assert records.count == {"written": 4000}


async def test_records_are_kept_when_a_sink_raises(records):
    class Broken:
        taken: list[bytes] = []  # noqa: RUF012 - one instance
        works = False

        def write(self, lines: Sequence[bytes]) -> None:
            if not self.works:
                raise RuntimeError("a bug")
            self.taken.extend(lines)

        def discard_failed(self) -> int:
            return 0

        def close(self) -> None:
            self.taken.append(b"closed")

    sink = Broken()
    writer = WriterThread(sink, on_failure="block", on_records=records, retry_delay=0.005)
    writer.enqueue([b"{}\n"])
    await wait_until(lambda: not writer.is_available)
    sink.works = True
    assert await writer.close(MAX_WAIT) == 0
    assert sink.taken == [b"{}\n", b"closed"]
    assert records.count == {"written": 1}
