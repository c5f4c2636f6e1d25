"""When the resources of callers were last written, in memory shared by all workers of a gateway.

When a write fails late, this shows whether a newer write of the same resource was sent or enqueued
meanwhile. It needs the standard library only: each worker reads the memory in its own process.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from typing import Final, Self

# Two slots for each resource: a write counts as newer only if both are, so that another resource
# which shares one of them has no effect.
_PLACES: Final = struct.Struct("=HH")
# The number of slots that a 16-bit index can name.
_MOMENTS: Final = 1 << 16
_LANE: Final = 8 * _MOMENTS


def shared_memory(workers: int) -> int:
    """Return a descriptor of memory for so many workers; pages never written to take no memory."""
    descriptor = os.memfd_create("last-writes")
    os.ftruncate(descriptor, workers * _LANE)
    return descriptor


class LastWrites:
    """Moments of the monotonic clock, the same for all processes, by caller and resource.

    `memory` has a lane for each worker. A worker writes only to its own lane, so that concurrent
    writers do not overwrite each other's moments, and reads all lanes. The successor of a worker
    has the same `lane`. Resources are distinguished by a hash: rarely, one counts as written
    although only others were.
    """

    def __init__(self, memory: mmap.mmap, lane: int) -> None:
        # Eight aligned bytes are written and read atomically.
        self._moments = memoryview(memory).cast("d")
        self._own_offset = lane * _MOMENTS
        self._lanes = range(0, len(self._moments), _MOMENTS)

    @classmethod
    def in_process(cls) -> Self:
        """Return an instance for a gateway of one process."""
        return cls(mmap.mmap(-1, _LANE), 0)

    @classmethod
    def shared(cls, descriptor: int, worker_index: int) -> Self:
        """Return the instance of one of several workers, counted from 0.

        `descriptor` is that of `shared_memory`, the same for all of them.
        """
        return cls(mmap.mmap(descriptor, 0), worker_index)

    def record(self, caller: str, resource: str, moment: float) -> None:
        """Record that a write which arrived at `moment` is sent or enqueued."""
        moments = self._moments
        for place in _slots_of(caller, resource):
            at = self._own_offset + place
            # A write that arrived earlier may be recorded later.
            if moments[at] < moment:
                moments[at] = moment

    def has_newer(self, caller: str, resource: str, moment: float) -> bool:
        """Return whether any worker recorded a write that arrived after `moment`."""
        one, other = _slots_of(caller, resource)
        moments = self._moments
        return any(
            moments[lane + one] > moment and moments[lane + other] > moment for lane in self._lanes
        )


def _slots_of(caller: str, resource: str) -> tuple[int, int]:
    """Return the two slots of a resource: the same in every process, unlike those of `hash`."""
    name = f"{caller}\n{resource}".encode()
    one, other = _PLACES.unpack(hashlib.blake2b(name, digest_size=_PLACES.size).digest())
    return one, other
