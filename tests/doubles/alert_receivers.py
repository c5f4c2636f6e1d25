"""Servers that receive alert messages: a mail server and a webhook, which record them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from typing import Any, Self

from aiohttp import web
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session
from apprise import URLBase

from tests.doubles.waiting import wait_until

PASSWORD = "planted-p%40ssw%2Frd"  # percent-encoded as in a URL


def _skip_throttle(service: URLBase, **_: object) -> None:
    """Replace `URLBase.throttle`, which waits between two messages."""


@dataclass
class _AlertReceiver:
    """A server that uses the same port again after `stopped`.

    In its context Apprise does not wait for seconds between two messages.
    """

    messages: list[dict[str, str]] = field(default_factory=list)
    port: int = 0

    async def wait_for_messages(self, count: int) -> list[dict[str, str]]:
        """Return the messages received, once there are `count`."""
        await wait_until(lambda: len(self.messages) >= count)
        return self.messages

    async def text(self, part: str) -> str:
        """Return the text of all messages received, once it contains `part`."""
        await wait_until(lambda: part in self._text())
        return self._text()

    def _text(self) -> str:
        return "\n".join(each["message"] for each in self.messages)

    async def __aenter__(self) -> Self:
        self._throttle, URLBase.throttle = URLBase.throttle, _skip_throttle
        await self._listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        URLBase.throttle = self._throttle
        await self._close()

    @contextlib.asynccontextmanager
    async def stopped(self) -> AsyncIterator[None]:
        """Stop listening within this block."""
        await self._close()
        try:
            yield
        finally:
            await self._listen()

    async def _listen(self) -> None:
        raise NotImplementedError

    async def _close(self) -> None:
        raise NotImplementedError


@dataclass
class Webhook(_AlertReceiver):
    """Receives JSON by HTTP, and responds with `status`."""

    status: int = 200

    @property
    def url(self) -> str:
        return f"json://gateway:{PASSWORD}@127.0.0.1:{self.port}/duty"

    async def _listen(self) -> None:
        application = web.Application()
        application.router.add_post("/duty", self._receive)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()
        self.port = self._runner.addresses[0][1]

    async def _close(self) -> None:
        await self._runner.cleanup()

    async def _receive(self, request: web.Request) -> web.Response:
        body = json.loads(await request.text())
        if self.status == 200:
            members = {key: body[key] for key in ("title", "message", "type")}
            self.messages.append(
                {**members, "authorization": request.headers.get("Authorization", "")}
            )
        return web.Response(status=self.status)


@dataclass
class MailServer(_AlertReceiver):
    """Receives mail by SMTP from clients that know the password."""

    @property
    def url(self) -> str:
        addresses = "from=gateway@clinic.uz&to=duty@clinic.uz"
        return f"mailto://gateway:{PASSWORD}@127.0.0.1:{self.port}?{addresses}"

    async def _listen(self) -> None:
        self._server = await asyncio.get_running_loop().create_server(
            self._session, "127.0.0.1", self.port
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        await self._server.wait_closed()

    def _session(self) -> SMTP:
        return SMTP(self, authenticator=self._authenticate, auth_require_tls=False, hostname="mail")

    def _authenticate(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any
    ) -> Any:
        return AuthResult(success=data.password == b"planted-p@ssw/rd", handled=False)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - aiosmtpd's name
        assert isinstance(envelope.content, bytes)
        mail = message_from_bytes(envelope.content, policy=policy.default)
        text = mail.get_body(("plain", "html"))
        assert text is not None
        self.messages.append(
            {"title": mail["Subject"], "message": text.get_content(), "to": mail["To"]}
        )
        return "250 OK"
