"""Evaluates the alerts periodically and sends messages about changes to operators.

The states of alerts are in memory only: after a restart a lasting alert is notified again, and one
that was resolved in the meantime is not reported as resolved.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.admin.alerts.addresses import AlertAddress, AlertMessage
from gateway.admin.alerts.daily_line import DailySummary
from gateway.admin.alerts.delivery import AddressQueue
from gateway.admin.alerts.rules import AlertInputs, CounterIncreases, firing_alerts
from gateway.admin.alerts.troubles import AlertStates
from gateway.admin.alerts.wording import AlertFormatter
from gateway.config import Settings
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger
from gateway.timing import TimeSource

if TYPE_CHECKING:
    # Commands send messages, too, and do not load the listener.
    from gateway.admin.health import Readiness
    from gateway.admin.status.state import StatusReporter

_log = get_logger(__name__)

_EVALUATION_INTERVAL: Final = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertInputSources:
    """Sources of the facts by which alerts are evaluated.

    `status` has the facts of `/status`, `readiness` the checks of `/readyz`. `certificates` returns
    the expiry of each certificate (Unix time).
    """

    status: StatusReporter
    readiness: Readiness
    certificates: Callable[[], Mapping[str, float]]


class AlertMonitor:
    """Sends messages about alerts that fire or are resolved.

    `count` is called with what becomes of messages, see `AddressQueue`.
    """

    def __init__(
        self,
        sources: AlertInputSources,
        count: Callable[[str, int], None],
        time: TimeSource | None = None,
    ) -> None:
        self._sources = sources
        self._count = count
        self._time = TimeSource() if time is None else time
        self._queues: dict[Secret, tuple[AddressQueue, asyncio.Task[None]]] = {}
        self._alert_states = AlertStates()
        self._increases = CounterIncreases()
        self._has_reload_failed = False
        self._wording = AlertFormatter("en", "")
        self._daily: DailySummary | None = None

    def configure(self, settings: Settings, addresses: Sequence[AlertAddress]) -> None:
        """Send to these addresses from now on. Messages still queued for others are dropped."""
        alerts = settings.alerts
        self._wording = AlertFormatter.from_settings(settings)
        if not alerts.daily:
            self._daily = None
        elif self._daily is None:
            self._daily = DailySummary(self._time.wall_clock())
        wanted = {address.url: address for address in addresses}
        for url in self._queues.keys() - wanted.keys():
            self._queues.pop(url)[1].cancel()
        for url in wanted.keys() - self._queues.keys():
            queue = AddressQueue(wanted[url], self._time, self._count)
            task = asyncio.get_running_loop().create_task(queue.run())
            self._queues[url] = queue, task

    def on_reload(self, outcome: str) -> None:
        """Record the outcome of the last reload of the settings: `ok` or `failed`."""
        self._has_reload_failed = outcome != "ok"

    async def run(self) -> None:
        """Call `check_alerts` every `_EVALUATION_INTERVAL` seconds until cancelled."""
        while True:
            await self._time.sleep(_EVALUATION_INTERVAL)
            try:
                await self.check_alerts()
            except Exception as error:
                _log.error("what is wrong could not be looked at: %s", type(error).__name__)

    async def check_alerts(self) -> None:
        """Evaluate the alerts and enqueue messages about changes.

        Does nothing while no address is configured or the gateway shuts down.
        """
        if not self._queues:
            return
        sources = self._sources
        status = sources.status.facts(self._wording.language)
        if status["care"]["reason"] == "shutting-down":
            return
        now, wall = self._time.clock(), self._time.wall_clock()
        facts = AlertInputs(
            status=status,
            ready=sources.readiness.report()[0],
            increases=self._increases.increases_at(status, now),
            certificate_seconds_left={
                name: end - wall for name, end in sources.certificates().items()
            },
            is_reload_failed=self._has_reload_failed,
        )
        begun, over = self._alert_states.update(firing_alerts(facts), now)
        if begun or over:
            self._notify(self._wording.format_changes(begun, over, status, (now, wall)))
        if self._daily is not None and self._daily.is_due(wall):
            self._notify(
                self._wording.format_daily(
                    status, self._daily.traffic(status), self._alert_states.notified_count
                )
            )

    async def close(self) -> None:
        """Stop sending; messages that are still queued are dropped."""
        tasks = [task for _, task in self._queues.values()]
        self._queues.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _notify(self, message: AlertMessage) -> None:
        for queue, _ in self._queues.values():
            queue.enqueue(message)
