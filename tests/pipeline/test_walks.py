"""The walks that docs/architecture.md prints, compared with requests on their way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.walks import PACKAGE, PAGE, of, steps, walk
from tests.doubles.wire import Wire, get
from tests.pipeline.conftest import StartGateway

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
    bytewise = walk("The bytes of a read")
    assert of(bytewise, taken) == bytewise


async def test_the_walk_of_a_settings_field(start_gateway: StartGateway) -> None:
    """A time limit is copied and read where it is printed: by a start, a header and a body."""
    printed = walk("The walk of a settings field")
    with steps() as taken:
        async with start_gateway(limits={"header_timeout": 1}) as gateway:
            async with await Wire.open(gateway.address) as wire:
                await wire.send(b"GET /fhir/Patient/1 HTTP/1.1\r\nHost: x\r\n")
                assert (await wire.read_response()).status == 408
            async with await Wire.open(gateway.address) as wire:
                await wire.send(
                    b"POST /fhir/Patient HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"
                )
                assert (await wire.read_response()).status == 408
    assert of(printed, taken) == printed


def test_every_module_that_reads_the_settings_field_is_printed() -> None:
    section = PAGE.partition("## The walk of a settings field\n")[2].partition("\n## ")[0]
    readers = [
        str(file.relative_to(PACKAGE))
        for file in Path(PACKAGE).rglob("*.py")
        if "header_timeout" in file.read_text("utf-8")
    ]
    assert len(readers) > 3
    assert [file for file in readers if f"`{file}`" not in section] == []
