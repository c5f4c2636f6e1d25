"""Limits how much is read from a connection to the platform at a time.

The event loop's own reads of up to 256 KB would be retained for each caller that reads its response
slowly; with hundreds of such callers they would fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Final

# Shared by all connections of the process: received data is copied out before the next read.
_BUFFER: Final = bytearray(64 * 1024)
_VIEW: Final = memoryview(_BUFFER)


class BoundedReadProtocol(asyncio.BufferedProtocol):
    """A protocol whose `data_received` gets at most 64 KiB."""

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return the buffer into which the event loop reads (asyncio.BufferedProtocol)."""
        del sizehint
        return _BUFFER

    def buffer_updated(self, nbytes: int) -> None:
        """Copy out the bytes that have arrived (asyncio.BufferedProtocol)."""
        self.data_received(_VIEW[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None:
        """Process data that has arrived; implemented by subclasses."""
        raise NotImplementedError
