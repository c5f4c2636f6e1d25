"""Sending to one address."""

from __future__ import annotations

import asyncio

from gateway.alerts.notify_addresses import AddressSender, AlertAddress, AlertMessage, parse_address
from gateway.i18n import Message
from gateway.secret import Secret
from tests.doubles.alert_receivers import MailServer
from tests.doubles.waiting import wait_until

MESSAGE = AlertMessage("test", "title", "body")


async def test_an_unresponsive_address_times_out_and_holds_one_thread() -> None:
    held: list[asyncio.StreamWriter] = []

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.append(writer)

    async with await asyncio.start_server(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        address = parse_address("it", Secret(f"json://127.0.0.1:{port}"))
        assert address is not None
        post = AddressSender(address, timeout=0.05)
        sending = asyncio.get_running_loop().create_task(post.send(MESSAGE))
        await wait_until(lambda: bool(held))
        assert not await sending
        assert post.thread is not None
        assert post.thread.daemon
        assert not await post.send(MESSAGE)
        assert len(held) == 1
        held[0].transport.abort()
        await asyncio.to_thread(post.thread.join, 60)
        assert not post.thread.is_alive()
        assert not await post.send(MESSAGE)
        await wait_until(lambda: len(held) == 2)
        held[1].transport.abort()
        await asyncio.to_thread(post.thread.join, 60)


async def test_messages_can_follow_without_a_delay() -> None:
    class Ready:
        """A service that accepts everything."""

        def notify(self, **_: str) -> bool:
            return True

    post = AddressSender(AlertAddress(Message("it"), Secret("json://there"), Ready()))
    assert [await post.send(MESSAGE) for _ in range(1000)] == [True] * 1000


async def test_lines_and_characters_arrive_by_mail_as_they_are() -> None:
    body = "* <1 % of the certificate's time & no more\n* Шлюз не готов\nhttps://x.uz/?a=1"
    async with MailServer() as mail:
        sender = AddressSender(parse_address(Message("it"), Secret(mail.url)))
        assert await sender.send(AlertMessage("begun", "title", body))
        assert mail.messages[0]["message"].splitlines() == body.splitlines()
