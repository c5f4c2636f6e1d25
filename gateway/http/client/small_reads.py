"""How much is read from a connection to the platform at a time.

What the event loop would read by itself, up to 256 KB, is held for each caller who takes its answer
slowly; hundreds of them would fill the memory.
"""

from __future__ import annotations

import asyncio
from typing import Final

# Of the whole process: what comes is copied out before anybody else reads.
_ARRIVED: Final = bytearray(64 * 1024)
_VIEW: Final = memoryview(_ARRIVED)


class BoundedReadProtocol(asyncio.BufferedProtocol):
    """A protocol whose `data_received` gets at most 64 KiB."""

    def get_buffer(self, sizehint: int) -> bytearray:
        """Where the event loop may put what comes (asyncio.BufferedProtocol)."""
        del sizehint
        return _ARRIVED

    def buffer_updated(self, nbytes: int) -> None:
        """So much has come (asyncio.BufferedProtocol)."""
        self.data_received(_VIEW[:nbytes].tobytes())

    def data_received(self, data: bytes) -> None:
        """Take what has come."""
        raise NotImplementedError
