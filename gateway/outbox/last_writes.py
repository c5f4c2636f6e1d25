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
_SLOT_PAIR: Final = struct.Struct("=HH")
# The number of slots that a 16-bit index can name.
_SLOT_COUNT: Final = 1 << 16
_LANE_BYTES: Final = 8 * _SLOT_COUNT


def shared_memory(workers: int) -> int:
    """Return a descriptor of memory for so many workers; pages never written to take no memory."""
    descriptor = os.memfd_create("last-writes")
    os.ftruncate(descriptor, workers * _LANE_BYTES)
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
        self._lane_offset = lane * _SLOT_COUNT
        self._lanes = range(0, len(self._moments), _SLOT_COUNT)

    @classmethod
    def in_process(cls) -> Self:
        """Return an instance for a gateway of one process."""
        return cls(mmap.mmap(-1, _LANE_BYTES), 0)

    @classmethod
    def shared(cls, descriptor: int, worker_index: int) -> Self:
        """Return the instance of one of several workers, counted from 0.

        `descriptor` is that of `shared_memory`, the same for all of them.
        """
        return cls(mmap.mmap(descriptor, 0), worker_index)

    def record(self, caller: str, resource: str, moment: float) -> None:
        """Record that a write which arrived at `moment` is sent or enqueued."""
        moments = self._moments
        for slot in _slots_of(caller, resource):
            index = self._lane_offset + slot
            # A write that arrived earlier may be recorded later.
            if moments[index] < moment:
                moments[index] = moment

    def has_newer(self, caller: str, resource: str, moment: float) -> bool:
        """Return whether any worker recorded a write that arrived after `moment`."""
        first, second = _slots_of(caller, resource)
        moments = self._moments
        return any(
            moments[lane + first] > moment and moments[lane + second] > moment
            for lane in self._lanes
        )


def _slots_of(caller: str, resource: str) -> tuple[int, int]:
    """Return the two slots of a resource: the same in every process, unlike those of `hash`."""
    name = f"{caller}\n{resource}".encode()
    first, second = _SLOT_PAIR.unpack(hashlib.blake2b(name, digest_size=_SLOT_PAIR.size).digest())
    return first, second
