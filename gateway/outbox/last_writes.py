"""When the resources of callers were last written, in memory that all workers of a gateway share.

Whoever has a write that failed late learns here whether a newer one of the same resource has gone
out, or was kept, in the meantime. Only Python's own is used: each worker asks in its own process.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from typing import Final, Self

# Two places for each resource: whoever shares one of them with it does not hide it.
_PLACES: Final = struct.Struct("=HH")
# As many as a place can name.
_MOMENTS: Final = 1 << 16
_LANE: Final = 8 * _MOMENTS


def shared_memory(workers: int) -> int:
    """A descriptor of memory for so many; what is never written to takes none."""
    descriptor = os.memfd_create("last-writes")
    os.ftruncate(descriptor, workers * _LANE)
    return descriptor


class LastWrites:
    """Moments of the monotonic clock, the same for all processes, by caller and resource.

    `memory` holds a lane for each worker. It writes to its own only, so that none of two who write
    at once takes the other's moment away, and reads all; its successor has the same `lane`.

    Resources are told apart by a hash: rarely one counts as written although others were.
    """

    def __init__(self, memory: mmap.mmap, lane: int) -> None:
        # Eight bytes at their own boundary are written and read as one.
        self._moments = memoryview(memory).cast("d")
        self._own_offset = lane * _MOMENTS
        self._lanes = range(0, len(self._moments), _MOMENTS)

    @classmethod
    def in_process(cls) -> Self:
        """For a gateway of one process."""
        return cls(mmap.mmap(-1, _LANE), 0)

    @classmethod
    def shared(cls, descriptor: int, worker_index: int) -> Self:
        """For one of several workers, counted from 0, who all have `shared_memory`."""
        return cls(mmap.mmap(descriptor, 0), worker_index)

    def record(self, caller: str, resource: str, moment: float) -> None:
        """A write that came at that moment goes out, or is kept."""
        moments = self._moments
        for place in _slots_of(caller, resource):
            at = self._own_offset + place
            # One that came before may get here later.
            if moments[at] < moment:
                moments[at] = moment

    def has_newer(self, caller: str, resource: str, moment: float) -> bool:
        """Whether a write that came after that moment was noted, by any worker."""
        one, other = _slots_of(caller, resource)
        moments = self._moments
        return any(
            moments[lane + one] > moment and moments[lane + other] > moment for lane in self._lanes
        )


def _slots_of(caller: str, resource: str) -> tuple[int, int]:
    """The same in every process, unlike `hash`."""
    name = f"{caller}\n{resource}".encode()
    one, other = _PLACES.unpack(hashlib.blake2b(name, digest_size=_PLACES.size).digest())
    return one, other
