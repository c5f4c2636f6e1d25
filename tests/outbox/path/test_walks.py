"""The walk of a queued write that docs/architecture.md prints, held against one on its way."""

from __future__ import annotations

import pytest

from tests.doubles.walks import of, steps, walk
from tests.outbox.path.hospital import Hospital

pytestmark = pytest.mark.interpreted


async def test_the_walk_of_a_queued_write(hospital: Hospital) -> None:
    """A write takes the printed steps to its 202, and its entry those of the delivery."""
    hospital.line.cut()
    with steps() as taken:
        queued = await hospital.write()
        await hospital.line.mend()
        ended = await hospital.ended(queued.location)
    assert (queued.status, ended.status) == (202, 200)
    printed = walk("The walk of a queued write")
    names = [name for name, _ in printed]
    # The delivery may begin while the 202 is made.
    delivery = names.index("OutboxStore.record_and_claim")
    for part in (printed[:delivery], printed[delivery:]):
        assert of(part, taken) == part
