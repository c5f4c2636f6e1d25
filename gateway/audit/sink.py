"""Where audit lines go: what a sink is, and the one that is a file descriptor."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Final, Protocol

from gateway import os_support


class SinkError(OSError):
    """A failure in words of our own, which the log may show."""


class Sink(Protocol):
    """Takes whole lines, each with its newline. All methods are called in the writer's thread."""

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines, blocking.

        Raises OSError on failure. The same lines are then given again, and the sink goes on after
        the last byte that it has written, or `discard_failed` is called.
        """
        ...

    def discard_failed(self) -> int:
        """Give up the lines of the failed `write`; how many of them were not written whole."""
        ...

    def close(self) -> None:
        """Release what the sink holds."""
        ...


class DescriptorSink:
    """Lines to a file descriptor, which stays open: standard output unless told otherwise."""

    def __init__(self, fd: int = 1) -> None:
        self._fd = fd
        self._rest = memoryview(b"")
        self._handed = 0
        self._torn = False  # the last byte written is not a newline

    def write(self, lines: Sequence[bytes]) -> None:
        """Write all lines; see `Sink.write`."""
        if not self._rest:
            # A line that was begun and given up must not run into the next one.
            self._rest = memoryview((b"\n" if self._torn else b"") + b"".join(lines))
            self._handed = len(lines)
        while self._rest:
            try:
                written = os.write(self._fd, self._rest)
            except BlockingIOError:
                # Another process made the description non-blocking: that is no failure.
                os_support.wait_writable(self._fd)
                continue
            self._torn = self._rest[written - 1] != _NEWLINE
            self._rest = self._rest[written:]

    def discard_failed(self) -> int:
        """Give up what is left; see `Sink.discard_failed`."""
        ends = bytes(self._rest).count(b"\n")
        self._rest = memoryview(b"")
        return min(ends, self._handed)

    def close(self) -> None:
        """Nothing to release: the descriptor is not the sink's own."""


_NEWLINE: Final = ord("\n")
