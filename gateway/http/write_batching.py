"""Sends what many connections have to say together, when the event loop's turn is over.

A write at once wakes its reader while the others' messages are still being made: under load it
costs the system, and whoever shares the processor, more than the message itself.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

MAX_BATCHED_BYTES: Final = 64 * 1024
"""Longer messages than this, in bytes, are not worth holding back."""


class BatchedConnection(Protocol):
    """A connection that holds a message back."""

    def flush(self) -> None:
        """Hand it to the transport now, if it is still there."""
        ...


class WriteBatcher:
    """Flushes each connection once, before the loop looks for news twice; needs a running loop."""

    __slots__ = ("_holding",)

    def __init__(self) -> None:
        self._holding: list[BatchedConnection] = []

    def schedule_flush(self, connection: BatchedConnection) -> None:
        """Flush this connection at the end of the turn."""
        if not self._holding:
            asyncio.get_running_loop().call_soon(self._flush)
        self._holding.append(connection)

    def _flush(self) -> None:
        holding, self._holding = self._holding, []
        for connection in holding:
            try:
                connection.flush()
            except Exception as error:
                # The failure of one must not keep the messages of the others.
                _log.error("internal error", exc_info=error, reason="internal")
