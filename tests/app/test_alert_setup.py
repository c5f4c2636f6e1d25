"""Alerts of a running gateway, and of one that is reloaded."""

from __future__ import annotations

import asyncio
from functools import partialmethod

import pytest

from gateway.alerts.alert_service import AlertMonitor
from gateway.app.observability_setup import parse_addresses
from gateway.clock import TimeSource
from gateway.errors import StartError
from gateway.secret import Secret
from tests.doubles import sso as answers
from tests.doubles.alert_receivers import MailServer, Webhook
from tests.doubles.clock import FakeClock
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform, fhir, then_reset, unauthorized
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until
from tests.doubles.wire import fetch, get

READ = get("/fhir/Patient/1")
SENT = "dhp_gateway_alert_messages_total"


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AlertMonitor, "run", partialmethod(AlertMonitor.run, interval=0.02))


class MonitorWithClock:
    """A messenger with a clock of its own, which looks at a running gateway."""

    def __init__(self, gateway: RunningGateway) -> None:
        self._clock = clock = FakeClock()
        self._messenger = AlertMonitor(
            health=gateway.gateway.health,
            audit_dropped=int,
            certificates=dict,
            count=lambda outcome, number: None,
            time=TimeSource(clock, clock.wall, clock.call_later, lambda: 1.0),
        )
        self._messenger.configure(gateway.settings, parse_addresses(gateway.settings))
        self.close = self._messenger.close

    async def pass_time(self, seconds: int) -> None:
        """As much time passes for it."""
        for _ in range(seconds // 10):
            self._clock.now += 10
            await self._messenger.check_alerts()
        # Pauses after failures are over as well.
        await self._clock.advance(900)

    async def wait_until_taken(self, receiver: MailServer, count: int) -> None:
        """Let pauses end until there are so many messages: an attempt may fail late."""
        async with asyncio.timeout(60):
            while len(receiver.messages) < count:
                await self._clock.advance(900)
                await asyncio.sleep(0.05)


async def test_outages_of_platform_and_sso_are_notified(platform: Platform, sso: Sso) -> None:
    async with (
        MailServer() as mail,
        Webhook() as hook,
        running_gateway(
            *(platform.url, sso.token_url),
            alerts={"notify": [mail.url, hook.url]},
            admin={"probe_interval": 0},
            retries={"max_attempts": 1},
            circuit_breaker={"min_requests": 1000},
        ) as gateway,
    ):
        watch = MonitorWithClock(gateway)
        assert (await fetch(gateway.address, READ)).status == 200
        platform.respond(then_reset(b""))
        for _ in range(25):  # nearly all of the last minute
            await fetch(gateway.address, READ)
        await watch.pass_time(150)
        await mail.wait_for_messages(1)
        platform.respond(fhir())
        for _ in range(30):  # the clock of the requests stands still beside that of the messages
            assert (await fetch(gateway.address, READ)).status == 200
        await watch.pass_time(90)
        await mail.wait_for_messages(2)
        async with mail.stopped():
            sso.respond(answers.status(503))
            platform.script(unauthorized())
            assert (await fetch(gateway.address, READ)).status == 503
            await watch.pass_time(150)
            await hook.wait_for_messages(3)
        await watch.pass_time(10)
        await watch.wait_until_taken(mail, 3)
        sso.respond(None)
        facts = gateway.gateway.status.facts
        await wait_until(lambda: facts("en")["sso"]["failure"] is None)
        await watch.pass_time(90)
        await mail.wait_for_messages(4)
        await hook.wait_for_messages(4)
        await watch.close()
    for taken in (mail.messages, hook.messages):
        platform_away, platform_back, sso_away, sso_back = (each["message"] for each in taken)
        away = ("The platform itself answers with errors", "The gateway cannot connect")
        assert any(each in platform_away for each in away)
        assert "Resolved after" in platform_back
        assert "gives no token for default: it cannot be reached" in sso_away
        assert "Resolved after" in sso_back


@pytest.mark.usefixtures("soon")
async def test_a_reload_replaces_the_alert_addresses(platform: Platform, sso: Sso) -> None:
    async with Webhook() as first, Webhook() as second:
        alerted = {"notify": [first.url]}
        async with running_gateway(platform.url, sso.token_url, alerts=alerted) as gateway:
            gateway.gateway.record_reload(1)
            [message] = await first.wait_for_messages(1)
            assert "New settings of" in message["message"]
            # A reload gives up what is being sent to an address that goes, though it has arrived.
            await gateway.wait_for_metric(1, SENT, outcome="sent")
            alerts = gateway.settings.alerts
            changed = {"notify": (Secret(second.url),), "language": "ru"}
            settings = gateway.settings.model_copy(
                update={"alerts": alerts.model_copy(update=changed)}
            )
            await gateway.gateway.reload(settings)
            gateway.gateway.record_reload(1)
            wrong = {"notify": (Secret("planted"),)}
            with pytest.raises(StartError, match=r"alerts\.notify\[0\]: is not an address"):
                await gateway.gateway.reload(
                    settings.model_copy(update={"alerts": alerts.model_copy(update=wrong)})
                )
            assert await gateway.metric(SENT, outcome="sent") == 1
            assert gateway.gateway.settings is settings
    assert len(first.messages) == 1
