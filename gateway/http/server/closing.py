"""Aborts closing connections whose callers read nothing of the data that is still buffered.

A closed transport first sends its buffer, without a time limit, and occupies a connection slot
until then. Over TLS it then waits for the caller's close_notify.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from gateway import os_support

# Seconds for which a TLS connection waits for the caller's close_notify once all data is received.
_CLOSE_NOTIFY_TIMEOUT: Final = 2.0


class ClosingConnection:
    """A connection's closed transport, and how many bytes its caller has not received yet."""

    __slots__ = ("_since", "_transport", "_unsent_bytes")

    def __init__(self, transport: asyncio.Transport, now: float) -> None:
        self._transport = transport
        self._since = now
        self._unsent_bytes = unsent_transport_bytes(transport)

    def abort_if_stalled(self, now: float, stall_timeout: float) -> None:
        """Abort if the caller received nothing at all in `stall_timeout` seconds.

        Slow reads are allowed. `now` is monotonic time in seconds.
        """
        unsent_bytes = unsent_transport_bytes(self._transport)
        # More is progress, too: the kernel has taken data from a buffer of the TLS layer.
        if unsent_bytes != self._unsent_bytes:
            self._since, self._unsent_bytes = now, unsent_bytes
        elif now - self._since >= (stall_timeout if unsent_bytes else _CLOSE_NOTIFY_TIMEOUT):
            self._transport.abort()


def unsent_transport_bytes(transport: asyncio.Transport) -> int:
    """Return how many bytes the peer has not acknowledged, including those in the kernel."""
    return transport.get_write_buffer_size() + _unsent_kernel_bytes(
        transport.get_extra_info("socket")
    )


def _unsent_kernel_bytes(raw: Any) -> int:
    """Return how many bytes the kernel has not delivered yet, 0 where it does not report that."""
    try:
        return 0 if raw is None else os_support.unacknowledged_bytes(raw)
    except (OSError, ValueError):
        return 0
