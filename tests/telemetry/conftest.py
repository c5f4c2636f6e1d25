"""Exchanges to record, and a pipe to write to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from gateway.exchange import Exchange


@dataclass
class Pipe:
    """A pipe that the test reads."""

    reader: int
    writer: int

    def read(self, size: int = 1 << 20) -> bytes:
        return os.read(self.reader, size)

    def fill(self) -> int:
        """Fill the pipe, so that a writer blocks. Return how many octets a reader gets first."""
        os.set_blocking(self.writer, False)
        size = 0
        try:
            while True:
                size += os.write(self.writer, b"-" * 4096)
        except BlockingIOError:
            os.set_blocking(self.writer, True)
        return size

    def read_to_end(self) -> bytes:
        """Close the writing end and return everything up to the end."""
        os.close(self.writer)
        self.writer = -1
        chunks = []
        while chunk := os.read(self.reader, 1 << 20):
            chunks.append(chunk)
        return b"".join(chunks)


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    """Yield a new pipe."""
    ends = Pipe(*os.pipe())
    yield ends
    for fd in (ends.reader, ends.writer):
        if fd >= 0:
            os.close(fd)


@pytest.fixture
def full_device() -> Iterator[int]:
    """Yield a descriptor on which every write fails with ENOSPC."""
    fd = os.open("/dev/full", os.O_WRONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def make_exchange() -> Callable[..., Exchange]:
    """Return a function that builds a finished exchange with the changes of a test."""

    def make(**changes: object) -> Exchange:
        fields: dict[str, object] = {
            "request_id": "r-1",
            "started_at": 1767225600.125,
            "started_monotonic": 10.0,
            "method": "GET",
            "remote": "10.20.0.7",
            "caller": "lab",
            "credential": "default",
            "interaction": "read",
            "resource": "Patient",
            "resource_id": "42",
            "status": 200,
            "upstream_status": 200,
            "attempts": 1,
            "request_bytes": 0,
            "response_bytes": 1700,
            "duration": 0.0204,
            "upstream_duration": 0.018,
        }
        return Exchange(**(fields | changes))  # type: ignore[arg-type]

    return make
