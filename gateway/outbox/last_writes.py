"""When the resources of callers were last written.

When a write fails late, this shows whether a newer write of the same resource was sent or enqueued
meanwhile.
"""

from __future__ import annotations

import hashlib
import mmap
import struct
from typing import Final

# Two slots for each resource: a write counts as newer only if both are, so that another resource
# which shares one of them has no effect.
_SLOT_PAIR: Final = struct.Struct("=HH")
# The number of slots that a 16-bit index can name.
_SLOT_COUNT: Final = 1 << 16


class LastWrites:
    """Moments of the monotonic clock by caller and resource.

    Resources are distinguished by a hash: rarely, one counts as written although only others were.
    """

    def __init__(self) -> None:
        # Anonymous memory: pages that were never written take none.
        self._moments = memoryview(mmap.mmap(-1, 8 * _SLOT_COUNT)).cast("d")

    def record(self, caller: str, resource: str, moment: float) -> None:
        """Record that a write which arrived at `moment` is sent or enqueued."""
        moments = self._moments
        for slot in _slots_of(caller, resource):
            # A write that arrived earlier may be recorded later.
            moments[slot] = max(moments[slot], moment)

    def has_newer(self, caller: str, resource: str, moment: float) -> bool:
        """Return whether a write was recorded that arrived after `moment`."""
        return all(self._moments[slot] > moment for slot in _slots_of(caller, resource))


def _slots_of(caller: str, resource: str) -> tuple[int, int]:
    name = f"{caller}\n{resource}".encode()
    first, second = _SLOT_PAIR.unpack(hashlib.blake2b(name, digest_size=_SLOT_PAIR.size).digest())
    return first, second
