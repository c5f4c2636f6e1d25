"""The walks of a queued write and of its delivery, as docs/architecture.md prints them."""

from __future__ import annotations

import pytest

from tests.doubles.walks import of, steps, walk
from tests.outbox.path.harness import OutboxSetup

pytestmark = pytest.mark.interpreted


async def test_the_walks_of_a_queued_write(setup: OutboxSetup) -> None:
    setup.relay.cut()
    with steps() as taken:
        queued = await setup.write()
    # Attempts that fail before the line is mended take other steps.
    with steps(anew_at="ActiveAttempts.start") as taken_later:
        ended = await setup.deliver(queued.location)
    assert (queued.status, ended.status) == (202, 200)
    way = walk("The walk of a queued write")
    assert of(way, taken) == way
    assert len(way) <= 20
    claim, *delivery = walk("The walk of a delivery")
    assert claim in taken_later
    assert of(delivery, taken_later) == delivery
    assert len(delivery) < 9
