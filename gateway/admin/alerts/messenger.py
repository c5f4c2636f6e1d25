"""Looks every some seconds whether something is wrong, and tells people.

One process of a gateway does, the supervisor where there is one. What was told is kept in memory:
after a restart a trouble that lasts is told once more, and none that ended meanwhile.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway.admin.alerts.addresses import Address, Message
from gateway.admin.alerts.delivery import Mailbox
from gateway.admin.alerts.rules import Facts, Increases, Value, found
from gateway.admin.alerts.texts import TEXTS
from gateway.admin.alerts.troubles import Trouble, Troubles
from gateway.admin.status.markup import span
from gateway.admin.status.texts import WORDS
from gateway.config import Settings
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger
from gateway.timing import TimeSource

if TYPE_CHECKING:
    # Commands send messages too, and need no listener.
    from gateway.admin.server import Report, StatusReport

_log = get_logger(__name__)

_LOOK: Final = 10.0
_DAILY_HOUR: Final = 8
_IN_SECONDS: Final = ("DhpGatewayOutboxAgeing", "DhpGatewayCertificateExpiring")


async def _at_hand() -> None:
    """The facts are in this process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSources:
    """Whom a look asks.

    `status` has the facts of `/status`, `readiness` those of `/readyz`, once `refresh` has fetched
    what they are made of; `certificates` tells when which of them ends (seconds since 1970).
    """

    status: StatusReport
    readiness: Report
    certificates: Callable[[], Mapping[str, float]]
    refresh: Callable[[], Awaitable[None]] = _at_hand


class Messenger:
    """Tells people what is wrong, and that it is over; `count` is told of every message."""

    def __init__(
        self,
        sources: AlertSources,
        count: Callable[[str, int], None],
        time: TimeSource | None = None,
    ) -> None:
        self._sources = sources
        self._count = count
        self._time = TimeSource() if time is None else time
        self._mailboxes: dict[Secret, tuple[Mailbox, asyncio.Task[None]]] = {}
        self._troubles = Troubles()
        self._increases = Increases()
        self._settings_refused = False
        self._wording = Wording("en", "")
        self._daily: DailyLine | None = None

    def configure(self, settings: Settings, addresses: Sequence[Address]) -> None:
        """Tell these addresses from now on; what others have not taken is given up."""
        alerts = settings.alerts
        self._wording = Wording(alerts.language, instance(settings))
        if not alerts.daily:
            self._daily = None
        elif self._daily is None:
            self._daily = DailyLine(self._time.wall_clock())
        wanted = {address.url: address for address in addresses}
        for url in self._mailboxes.keys() - wanted.keys():
            self._mailboxes.pop(url)[1].cancel()
        for url in wanted.keys() - self._mailboxes.keys():
            mailbox = Mailbox(wanted[url], self._time, self._count)
            task = asyncio.get_running_loop().create_task(mailbox.run())
            self._mailboxes[url] = mailbox, task

    def reloaded(self, outcome: str) -> None:
        """Whether the last reload was taken: `ok` or `failed`."""
        self._settings_refused = outcome != "ok"

    async def run(self) -> None:
        """Look again and again."""
        while True:
            await self._time.sleep(_LOOK)
            try:
                await self.look()
            except Exception as error:
                _log.error("what is wrong could not be looked at: %s", type(error).__name__)

    async def look(self) -> None:
        """Look once; nothing is asked while nobody is to be told."""
        if not self._mailboxes:
            return
        sources = self._sources
        status = await sources.status.facts(self._wording.language)
        if status["care"]["reason"] == "shutting-down":
            return
        await sources.refresh()
        now, wall = self._time.clock(), self._time.wall_clock()
        facts = Facts(
            status=status,
            ready=sources.readiness.report()[0],
            increases=self._increases.of(status, now),
            left={name: end - wall for name, end in sources.certificates().items()},
            settings_refused=self._settings_refused,
        )
        begun, over = self._troubles.look(found(facts), now)
        if begun or over:
            self._tell(self._wording.of_changes(begun, over, status, (now, wall)))
        if self._daily is not None and self._daily.is_due(wall):
            self._tell(
                self._wording.daily(status, self._daily.traffic(status), self._troubles.open)
            )

    async def close(self) -> None:
        """Stop telling; what no address has taken is given up."""
        tasks = [task for _, task in self._mailboxes.values()]
        self._mailboxes.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _tell(self, message: Message) -> None:
        for mailbox, _ in self._mailboxes.values():
            mailbox.put(message)


class DailyLine:
    """When the next line of a day is due, and what has happened since the last one."""

    def __init__(self, wall: float) -> None:
        now = datetime.fromtimestamp(wall)
        # Who starts a gateway in the afternoon waits for the next morning.
        self._told = now.date() if now.hour >= _DAILY_HOUR else date.min
        self._before = (0, 0)

    def is_due(self, wall: float) -> bool:
        """Whether this day has had none and the morning has come; a clock put back counts not."""
        now = datetime.fromtimestamp(wall)
        if now.hour < _DAILY_HOUR or now.date() <= self._told:
            return False
        self._told = now.date()
        return True

    def traffic(self, status: Mapping[str, Any]) -> tuple[int, int]:
        """Requests and errors since the last time."""
        requests, errors = (
            sum(caller[what] for caller in status["callers"]) for what in ("requests", "errors")
        )
        before, self._before = self._before, (requests, errors)
        if requests < before[0]:
            # A worker has ended, and what it had counted went with it.
            return requests, errors
        return requests - before[0], max(errors - before[1], 0)


@dataclass(frozen=True, slots=True)
class Wording:
    """Messages of one gateway, the `instance`, in a language."""

    language: str
    instance: str

    def of_changes(
        self,
        begun: Sequence[Trouble],
        over: Sequence[Trouble],
        status: Mapping[str, Any],
        now: tuple[float, float],
    ) -> Message:
        """What has begun and what is over, a line each; `now` by both clocks."""
        moment, wall = now
        lines = [
            self._line(
                "begun", trouble, at=wall - (moment - trouble.began), care=_care(trouble, status)
            )
            for trouble in begun
        ]
        lines += [
            self._line(
                "over", trouble, at=wall - (moment - trouble.last), lasted=self._span(trouble)
            )
            for trouble in over
        ]
        return self._message("begun" if begun else "over", "\n".join(lines))

    def daily(self, status: Mapping[str, Any], traffic: tuple[int, int], still: int) -> Message:
        """How things stand."""
        words, care = WORDS[self.language], status["care"]
        body = self._text("daily").format(
            question=words["question"],
            answer=words[f"answer:{care['answer']}"],
            care=care["text"],
            requests=traffic[0],
            errors=traffic[1],
            open=still,
        )
        return self._message("daily", body)

    def test(self) -> Message:
        """A message that shows that messages arrive."""
        return self._message("test", self._text("test").format(instance=self.instance))

    def _message(self, kind: str, body: str) -> Message:
        return Message(kind, self._text(f"title:{kind}").format(instance=self.instance), body)

    def _line(self, kind: str, trouble: Trouble, *, at: float, **words: str) -> str:
        moment = datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %z")
        sentence = self._text(trouble.name).format(
            instance=self.instance,
            about=trouble.about,
            value=self._figure(trouble.name, trouble.value),
        )
        line = self._text(kind).format(at=moment, sentence=sentence, **words)
        # By its name it is found in the runbook.
        return f"{line.rstrip()} ({trouble.name})"

    def _figure(self, name: str, value: Value) -> str:
        if value is None:
            return ""
        if name in _IN_SECONDS:
            return span(round(value), WORDS[self.language])
        return f"{value:.0%}" if name == "DhpGatewayPlatformDown" else str(value)

    def _span(self, trouble: Trouble) -> str:
        return span(round(trouble.last - trouble.began), WORDS[self.language])

    def _text(self, key: str) -> str:
        return TEXTS[self.language][key]


def instance(settings: Settings) -> str:
    """Which gateway it is, for people: the host that callers know, else the machine's name."""
    url = settings.listen.public_url
    return (urlsplit(url).hostname if url else None) or socket.gethostname()


def _care(trouble: Trouble, status: Mapping[str, Any]) -> str:
    """What the status page says on what to do."""
    return str(status["care"]["text"]) if trouble.name == "DhpGatewayNotReady" else ""
