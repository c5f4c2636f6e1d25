"""The walk of a read that docs/architecture.md prints, compared with one on its way."""

from __future__ import annotations

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.walks import of, steps, walk
from tests.doubles.wire import Wire, get

pytestmark = pytest.mark.interpreted


async def test_the_walk_of_a_read(gateway: RunningGateway) -> None:
    """A second read on a connection takes fifteen steps; handler and request composer call those
    after the connection and the dispatcher.
    """
    async with await Wire.open(gateway.address) as wire:
        await wire.fetch(get("/fhir/Patient/1"))
        with steps() as taken:
            await wire.fetch(get("/fhir/Patient/2"))
    printed = walk("The walk of a read")
    assert len(printed) == 15
    assert of(printed, taken) == printed
    called = {taken[step] for step in printed[3:]}
    assert called == {"pipeline/handler.py", "pipeline/request_composer.py"}
