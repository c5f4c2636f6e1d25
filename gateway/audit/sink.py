"""Destinations of audit lines: the protocol of a sink, and the sink of a file descriptor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Protocol

from gateway import os_support


class SinkError(OSError):
    """A failure with a text of the gateway, which is safe to log."""


class Sink(Protocol):
    """Takes complete lines with their line feeds. All methods are called in the writer's thread."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines, blocking.

        Raises OSError on failure. The caller then either passes the same lines again, and the sink
        continues after the last byte that it has written, or calls `discard_failed`.
        """
        ...

    def discard_failed(self) -> int:
        """Discard the lines of the failed `write`. Return how many were not written completely."""
        ...

    def close(self) -> None:
        """Release the resources of the sink."""
        ...


class DescriptorSink:
    """Writes lines to a file descriptor, by default standard output. Does not close it."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._rest = memoryview(b"")
        self._handed = 0
        self._torn = False  # whether the last byte written is not a line feed

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines (`Sink.write`)."""
        if not self._rest:
            # A discarded partial line must not run into the next line.
            self._rest = memoryview((b"\n" if self._torn else b"") + b"".join(lines))
            self._handed = len(lines)
        while self._rest:
            try:
                written = os.write(self._fd, self._rest)
            except BlockingIOError:
                # Another process has made the open file description non-blocking, which is not a
                # failure.
                os_support.wait_writable(self._fd)
                continue
            self._torn = self._rest[written - 1] != _NEWLINE
            self._rest = self._rest[written:]

    def discard_failed(self) -> int:
        """Discard what is left (`Sink.discard_failed`)."""
        ends = bytes(self._rest).count(b"\n")
        self._rest = memoryview(b"")
        return min(ends, self._handed)

    def close(self) -> None:
        """Do nothing: the descriptor does not belong to the sink."""


_NEWLINE: Final = ord("\n")
