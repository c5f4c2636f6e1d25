"""The walk of a queued write that docs/architecture.md prints, compared with one on its way."""

from __future__ import annotations

import pytest

from tests.doubles.walks import of, steps, walk
from tests.outbox.path.harness import OutboxSetup

pytestmark = pytest.mark.interpreted


async def test_the_walk_of_a_queued_write(setup: OutboxSetup) -> None:
    setup.relay.cut()
    with steps() as taken:
        queued = await setup.write()
    assert queued.status == 202
    printed = walk("The walk of a queued write")
    assert of(printed, taken) == printed
