"""The addresses of alert messages for the library Apprise, and the delivery to each of them.

Only this module imports Apprise (extra `notify`), and only when an address is used. Addresses
contain passwords, often in place of the host, so that only the scheme of an address is ever shown.

Messages to an address are delivered in order, with retries for as long as it is unreachable. The
library blocks, so that each attempt runs in a thread. An address has one such thread at most, and
the process does not wait for it at its end. The alert service delivers through this module; `check`
and `notify --test` parse addresses with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.clock import TimeSource, backoff
from gateway.errors import StartError
from gateway.i18n import Message, format_duration, setting_problem
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger, silence_libraries

_log = get_logger(__name__)

_MISSING: Final = Message("needs the extra `notify`: pip install 'dhp-gateway[notify]'")
_NOT_UNDERSTOOD: Final = Message("is not an address that Apprise understands")
_ADDRESS_HINT: Final = Message(
    "write it like mailtos://user:password@mail.clinic.uz?to=duty@clinic.uz; characters such as "
    "@ or / in a password are percent-encoded"
)
# Loggers of the libraries that send messages: they quote addresses, header fields and responses.
_NOISY_LOGGERS: Final = ("apprise", "oauthlib", "requests_oauthlib", "urllib3")
_KINDS: Final = {"begun": "failure", "over": "success"}


class AlertAddressError(StartError):
    """Apprise does not understand an address."""


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """A message to operators; `kind` is `begun`, `over`, `daily` or `test`."""

    kind: str
    title: str
    body: str


@dataclass(frozen=True, slots=True)
class AlertAddress:
    """An address that receives messages. `name` is for display: the setting and the scheme."""

    name: Message
    url: Secret
    _service: Any = field(repr=False, compare=False)

    def send(self, message: AlertMessage) -> bool:
        """Send the message and return whether the service accepted it.

        Blocks until the service has responded or failed; raises nothing.
        """
        try:
            return bool(
                self._service.notify(
                    body=message.body,
                    title=message.title,
                    # Otherwise Apprise puts the text into mail as HTML: all lines run into one.
                    body_format="text",
                    notify_type=_KINDS.get(message.kind, "info"),
                )
            )
        except Exception:
            # A service's code may raise anything. The error's text may quote the address.
            return False

    def server(self) -> tuple[str, int] | None:
        """Return the host and port that messages are sent to, None if the address has none."""
        service = self._service
        if host := getattr(service, "smtp_host", None):
            return str(host), int(service.port)
        # The host part of other addresses may be a token.
        if "host" not in service.template_tokens or hasattr(service, "notify_url"):
            return None
        return str(service.host), int(service.port or (443 if service.secure else 80))


def parse_address(name: Message, url: Secret) -> AlertAddress:
    """Return the address of a URL. Raises `AlertAddressError`, and `StartError` without Apprise.

    Opens no connection. The first call imports the library, which takes most of a second.
    """
    apprise = _import_apprise()
    # Apprise stores nothing on disk, and loads no plugin code from there.
    asset = apprise.AppriseAsset(
        app_id="DHP Gateway", app_desc="DHP Gateway", app_url="", storage_mode="memory"
    )
    service = apprise.Apprise.instantiate(url.reveal(), asset=asset)
    if service is None:
        raise AlertAddressError(setting_problem(name, _NOT_UNDERSTOOD, _ADDRESS_HINT))
    return AlertAddress(
        Message("{name} ({scheme})", name=name, scheme=urlsplit(url.reveal()).scheme), url, service
    )


def _import_apprise() -> Any:
    try:
        library = importlib.import_module("apprise")
    except ImportError:
        raise StartError(setting_problem("alerts.notify", _MISSING)) from None
    silence_libraries(*_NOISY_LOGGERS)
    return library


# Number of messages above which the oldest are dropped.
_MAX_WAITING: Final = 50
_ATTEMPT_TIMEOUT: Final = 60.0
_FIRST_RETRY_DELAY, _MAX_RETRY_DELAY = 15.0, 900.0


class AddressSender:
    """Sends messages to one address, each in a thread; `timeout` is in seconds."""

    def __init__(self, address: AlertAddress, timeout: float = _ATTEMPT_TIMEOUT) -> None:
        self.address = address
        self._timeout = timeout
        self.thread: threading.Thread | None = None
        # True until the thread has ended, even if the attempt has timed out before.
        self._is_sending = False

    async def send(self, message: AlertMessage) -> bool:
        """Send a message and return whether the address accepted it in time."""
        if self._is_sending:
            return False  # the thread of an attempt that timed out is still running
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[bool] = loop.create_future()

        def settle(result: bool) -> None:
            if not taken.done():
                taken.set_result(result)

        def attempt() -> None:
            result = self.address.send(message)
            self._is_sending = False
            # Raised where the loop has been closed meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(settle, result)

        self._is_sending = True
        self.thread = threading.Thread(target=attempt, name="alert message", daemon=True)
        self.thread.start()
        try:
            async with asyncio.timeout(self._timeout):
                return await taken
        except TimeoutError:
            return False


class AddressQueue:
    """Messages that one address has not accepted yet.

    `count` is called with `sent`, `failed` or `dropped` and a number.
    """

    def __init__(
        self, address: AlertAddress, time: TimeSource, count: Callable[[str, int], None]
    ) -> None:
        self._sender = AddressSender(address)
        self._time = time
        self._count = count
        self._waiting: deque[AlertMessage] = deque()
        self._has_messages = asyncio.Event()

    def enqueue(self, message: AlertMessage) -> None:
        """Append a message; beyond the limit the oldest ones are dropped."""
        self._waiting.append(message)
        while len(self._waiting) > _MAX_WAITING:
            self._waiting.popleft()
            self._count("dropped", 1)
        self._has_messages.set()

    async def run(self) -> None:
        """Send queued messages until cancelled."""
        while True:
            await self._has_messages.wait()
            self._has_messages.clear()
            if self._waiting:
                await self._deliver()

    async def _deliver(self) -> None:
        failures = 0
        while not await self._attempt():
            failures += 1
            delay = backoff(failures, _FIRST_RETRY_DELAY, _MAX_RETRY_DELAY, self._time.random)
            if failures == 1:
                _log.warning(
                    "%s accepts no message; it is tried again in %s, then less often",
                    self._sender.address.name,
                    format_duration(delay),
                    key="alerts.notify",
                )
            await self._time.sleep(delay)
        if failures:
            _log.info("%s accepts messages again", self._sender.address.name, key="alerts.notify")

    async def _attempt(self) -> bool:
        """Send all queued messages as one: after an outage a single message arrives, not fifty."""
        together = tuple(self._waiting)
        last = together[-1]
        body = "\n".join(message.body for message in together)
        if not await self._sender.send(AlertMessage(last.kind, last.title, body)):
            self._count("failed", 1)
            return False
        for message in together:
            # Messages dropped during the attempt are no longer in the queue.
            if self._waiting and self._waiting[0] is message:
                self._waiting.popleft()
        self._count("sent", 1)
        if self._waiting:
            self._has_messages.set()
        return True
