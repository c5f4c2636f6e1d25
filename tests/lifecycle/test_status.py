"""The status page of a gateway process, beyond its single pages: its end."""

from __future__ import annotations

import signal

import aiohttp

from tests.lifecycle.conftest import StartService


async def test_an_open_page_does_not_hold_up_the_end(start_service: StartService) -> None:
    """SIGTERM ends the stream of a page regularly, and the process at once."""
    service = start_service()
    await service.until_ready()
    connector = aiohttp.UnixConnector(service.admin.path)
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get("http://localhost/status/events") as stream,
    ):
        assert (await stream.content.readline()).startswith(b"data: ")
        service.send(signal.SIGTERM)
        while await stream.content.read(2**16):
            pass
    assert await service.ended() == 0
