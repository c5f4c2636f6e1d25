"""Gives up callers that take nothing of what still waits for them when their connection closes.

A closed transport sends what it holds first, without limit, and keeps the connection's place.
"""

from __future__ import annotations

import asyncio
from typing import Any

from gateway import os_support


class ClosingConnection:
    """A connection's transport that was closed, and what its caller has yet to take."""

    __slots__ = ("_since", "_transport", "_waiting")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._since = now
        self._waiting = unsent_transport_bytes(transport)

    def abort_if_stalled(self, now: float, stall: float) -> None:
        """Abort when nothing at all was taken in `stall` seconds; slow is allowed."""
        if now - self._since < stall:
            return
        waiting = unsent_transport_bytes(self._transport)
        if waiting >= self._waiting:
            self._transport.abort()
        self._since, self._waiting = now, waiting


def unsent_transport_bytes(transport: asyncio.Transport) -> int:
    """How many bytes wait to be taken by the other side, those in the kernel included."""
    return transport.get_write_buffer_size() + _unsent_kernel_bytes(
        transport.get_extra_info("socket")
    )


def _unsent_kernel_bytes(raw: Any) -> int:
    """Bytes that the kernel has not delivered yet, where it tells."""
    try:
        return 0 if raw is None else os_support.unacknowledged_bytes(raw)
    except (OSError, ValueError):
        return 0
