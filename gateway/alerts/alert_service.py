"""Evaluates the alerts periodically and sends messages about changes to operators.

Each alert is notified once when it fires and once when it is resolved. A daily message shows
operators that alert messages would arrive. The states of alerts are in memory only: after a restart
a lasting alert is notified again, and one that was resolved in the meantime is not reported as
resolved.

`gateway.alerts.alert_rules` has the conditions, `gateway.alerts.alert_messages` the texts.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from typing import TYPE_CHECKING, Final

from gateway.alerts.alert_messages import AlertFormatter, AlertState
from gateway.alerts.alert_rules import COVERED, HOLD_SECONDS, AlertKey, Value, firing_alerts
from gateway.alerts.notify_addresses import AddressQueue, AlertAddress, AlertMessage
from gateway.clock import TimeSource
from gateway.health.health import Health, worst
from gateway.secret import Secret
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.settings import Settings

_log = get_logger(__name__)

# Seconds without its condition after which a firing alert is resolved. A shorter gap is ignored.
_RESOLVE_SECONDS: Final = 60.0


class AlertStates:
    """All alerts that are pending or firing."""

    def __init__(self) -> None:
        self._states: dict[AlertKey, AlertState] = {}

    def update(
        self, found: Mapping[AlertKey, Value], now: float
    ) -> tuple[list[AlertState], list[AlertState]]:
        """Return the alerts that begin to fire and those that are resolved.

        `found` has the alerts whose condition holds; `now` is monotonic. The caller must notify
        both, because an alert is returned only once.
        """
        for key, value in found.items():
            alert = self._states.setdefault(
                key, AlertState(*key, first_seen_at=now, last_seen_at=now, value=value)
            )
            alert.last_seen_at = now
            if not alert.is_notified:
                alert.value = value
                if (COVERED.get(alert.name, ""), "") in found:
                    alert.first_seen_at = now
        over = [
            key
            for key, alert in self._states.items()
            if key not in found and _is_resolved(alert, now)
        ]
        ended = [alert for alert in map(self._states.pop, over) if alert.is_notified]
        begun = [
            alert for key, alert in self._states.items() if key in found and _is_due(alert, now)
        ]
        for alert in begun:
            alert.is_notified = True
        return begun, ended

    @property
    def notified_count(self) -> int:
        """Number of alerts that have been notified and are not resolved."""
        return sum(alert.is_notified for alert in self._states.values())


def _is_due(alert: AlertState, now: float) -> bool:
    return not alert.is_notified and now - alert.first_seen_at >= HOLD_SECONDS[alert.name]


def _is_resolved(alert: AlertState, now: float) -> bool:
    # A pending alert, which has not been notified, starts again after each gap.
    return not alert.is_notified or now - alert.last_seen_at >= _RESOLVE_SECONDS


_DAILY_HOUR: Final = 8


class DailySummary:
    """When the next daily message is due, and the traffic since the last one.

    `wall` is a Unix time; the message is due at 08:00 local time.
    """

    def __init__(self, wall: float) -> None:
        now = datetime.fromtimestamp(wall)
        # A gateway started after that hour sends its first daily message the next morning.
        self._last_sent_on = now.date() if now.hour >= _DAILY_HOUR else date.min
        self._before = (0, 0)

    def is_due(self, wall: float) -> bool:
        """Return whether today's message is due, and count it as sent.

        A clock that is set back does not make the message of a day due again.
        """
        now = datetime.fromtimestamp(wall)
        if now.hour < _DAILY_HOUR or now.date() <= self._last_sent_on:
            return False
        self._last_sent_on = now.date()
        return True

    def traffic(self, totals: tuple[int, int]) -> tuple[int, int]:
        """Return the numbers of requests and errors since the last call, of those in total."""
        before, self._before = self._before, totals
        return totals[0] - before[0], totals[1] - before[1]


_EVALUATION_INTERVAL: Final = 10.0
# Seconds for which the alert about lost audit records fires.
_LOSS_SECONDS: Final = 300.0


class AlertMonitor:
    """Sends messages about alerts that fire or are resolved.

    `audit_dropped` returns the number of lost audit records, `certificates` the expiry of each
    certificate (Unix time). `count` is called with what becomes of messages, see `AddressQueue`.
    Without addresses nothing is evaluated.
    """

    def __init__(
        self,
        *,
        health: Health,
        audit_dropped: Callable[[], int],
        certificates: Callable[[], Mapping[str, float]],
        count: Callable[[str, int], None],
        time: TimeSource | None = None,
    ) -> None:
        self._health = health
        self._audit_dropped = audit_dropped
        self._certificates = certificates
        self._count = count
        self._time = TimeSource() if time is None else time
        self._queues: dict[Secret, tuple[AddressQueue, asyncio.Task[None]]] = {}
        self._alert_states = AlertStates()
        # The number of lost records at the last evaluation, and when it last grew (monotonic).
        self._lost_before: int | None = None
        self._lost_at = -math.inf
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
            self._queues[url] = queue, asyncio.get_running_loop().create_task(queue.run())

    def on_reload(self, outcome: str) -> None:
        """Record the outcome of the last reload of the settings: `ok` or `failed`."""
        self._has_reload_failed = outcome != "ok"

    async def run(self, interval: float = _EVALUATION_INTERVAL) -> None:
        """Call `check_alerts` every `interval` seconds until cancelled."""
        while True:
            await self._time.sleep(interval)
            try:
                await self.check_alerts()
            except Exception as error:
                _log.error("the alert rules could not be evaluated: %s", type(error).__name__)

    async def check_alerts(self) -> None:
        """Evaluate the alerts and enqueue messages about changes.

        Does nothing while no address is configured or the gateway shuts down.
        """
        if not self._queues:
            return
        components = self._health.components()
        care = worst(components)
        if care.reason == "shutting-down":
            return
        now, wall = self._time.clock(), self._time.wall_clock()
        firing = firing_alerts(
            self._health,
            components,
            has_lost_records=self._has_lost_records(now),
            is_reload_failed=self._has_reload_failed,
            certificate_seconds_left={
                name: end - wall for name, end in self._certificates().items()
            },
        )
        begun, over = self._alert_states.update(firing, now)
        if begun or over:
            self._notify(self._wording.format_changes(begun, over, care, (now, wall)))
        if self._daily is not None and self._daily.is_due(wall):
            traffic = self._daily.traffic(self._health.recent_requests.totals())
            self._notify(
                self._wording.format_daily(care, traffic, self._alert_states.notified_count)
            )

    def _has_lost_records(self, now: float) -> bool:
        lost = self._audit_dropped()
        # What was lost before the first evaluation is not new.
        if self._lost_before is not None and lost > self._lost_before:
            self._lost_at = now
        self._lost_before = lost
        return now - self._lost_at < _LOSS_SECONDS

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
