"""Which alerts are sent and when, with a fake clock and real servers."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime

import pytest

from gateway.alerts.alert_service import AlertMonitor
from gateway.app.observability_setup import parse_addresses
from gateway.clock import TimeSource
from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from gateway.health.evidence import CircuitState
from gateway.i18n import LANGUAGES
from tests.doubles.alert_receivers import PASSWORD, MailServer, Webhook
from tests.doubles.gateway_states import VALID_TOKEN, GatewayState
from tests.doubles.waiting import wait_until

CHECK_INTERVAL = 10.0
DAY = 86400.0
FAILED = replace(VALID_TOKEN, is_valid=False, expires_in=None)


def settings(*urls: str, contact: str = "", runbook_url: str = "", **alerts: str) -> Settings:
    environ = {
        "DHP_GATEWAY_ENVIRONMENT": "dhp-playground",
        "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "hospital-17",
        "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET": "planted-client-secret",
        "DHP_GATEWAY_LISTEN__PUBLIC_URL": "http://fhir.clinic.uz:8080/fhir",
        "DHP_GATEWAY_ALERTS__NOTIFY": json.dumps(urls),
        "DHP_GATEWAY_ADMIN__CONTACT": contact,
        "DHP_GATEWAY_ADMIN__RUNBOOK_URL": runbook_url,
    }
    return load_settings(
        None, environ | {f"DHP_GATEWAY_ALERTS__{k}".upper(): v for k, v in alerts.items()}
    )


@dataclass
class AlertSetup:
    """A gateway's state and its alert monitor."""

    gateway: GatewayState = field(default_factory=GatewayState)
    certificates: dict[str, float] = field(default_factory=dict)
    counted: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        gateway, clock = self.gateway, self.gateway.clock
        self.dropped = 0
        self.minutely: Callable[[], None] | None = None
        self.time = TimeSource(clock, clock.wall, clock.call_later, lambda: 1.0)
        self.monitor = AlertMonitor(
            health=gateway.health,
            audit_dropped=lambda: self.dropped,
            certificates=lambda: self.certificates,
            count=self._count,
            time=self.time,
        )

    def _count(self, outcome: str, number: int) -> None:
        self.counted[outcome] += number

    async def pass_time(self, seconds: float, pace: float = CHECK_INTERVAL) -> None:
        """Let time pass with a check every `pace` seconds; timers wait for `advance`."""
        for _ in range(round(seconds / pace)):
            self.gateway.clock.now += pace
            if self.minutely is not None and self.gateway.clock.now % 60 < pace:
                self.minutely()
            await self.gateway.judgement.probe_if_due()
            await self.monitor.check_alerts()

    async def alert_names(self, hook: Webhook) -> list[str]:
        """Return the names of all notified alerts in order. One more marks the end."""
        self.monitor.on_reload("failed")
        await self.pass_time(CHECK_INTERVAL)
        text = await hook.text("(DhpGatewayReloadFailed)")
        *names, _ = re.findall(r"\(DhpGateway(\w+)\)", text)
        return names

    async def wait_until_counted(self, outcome: str, number: int) -> None:
        await wait_until(lambda: self.counted[outcome] >= number)


@contextlib.asynccontextmanager
async def alert_setup(*urls: str, **alerts: str) -> AsyncIterator[AlertSetup]:
    setup = AlertSetup()
    given = settings(*urls, **alerts)
    setup.monitor.configure(given, parse_addresses(given))
    await setup.monitor.check_alerts()
    try:
        yield setup
    finally:
        await setup.monitor.close()


@pytest.fixture(scope="module")
def log_lines() -> Iterator[list[str]]:
    lines: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.name != "mail.log":  # the mail server's own
                lines.append(record.getMessage())

    root, kept = logging.getLogger(), Recorder()
    before = root.level
    root.addHandler(kept)
    root.setLevel(logging.DEBUG)
    yield lines
    root.removeHandler(kept)
    root.setLevel(before)


pytestmark = pytest.mark.usefixtures("log_lines")


async def test_an_alert_is_sent_once_and_its_end_once() -> None:
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        setup.gateway.set_circuit(CircuitState.OPEN)
        await setup.pass_time(130)
        [begun] = await hook.wait_for_messages(1)
        await setup.pass_time(3600, 60)
        setup.gateway.set_circuit(CircuitState.CLOSED)
        await setup.pass_time(30)
        setup.gateway.set_circuit(CircuitState.OPEN)  # it was not over
        await setup.pass_time(30)
        setup.gateway.set_circuit(CircuitState.CLOSED)
        await setup.pass_time(600, 60)
        _, over = await hook.wait_for_messages(2)
        await setup.pass_time(3600, 60)
        assert await setup.alert_names(hook) == ["NotReady", "NotReady"]
    assert begun["title"] == "DHP Gateway fhir.clinic.uz: alert"
    assert "has not been ready for 2 minutes. The gateway cannot connect" in begun["message"]
    assert "dhp-gateway doctor" in begun["message"]
    assert begun["message"].endswith("(DhpGatewayNotReady)")
    assert begun["type"] == "failure"
    assert over["title"] == "DHP Gateway fhir.clinic.uz: resolved"
    assert "Resolved after 1 h 3 min: The gateway fhir.clinic.uz has not been" in over["message"]
    assert over["type"] == "success"


async def test_a_message_says_whom_to_call_and_leads_to_the_runbook() -> None:
    """Of what is resolved, nobody has to be called."""
    runbook = "https://intranet.example/runbook/"
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        given = settings(hook.url, contact="Duty {IT}, +998 71 200 00 00", runbook_url=runbook)
        setup.monitor.configure(given, parse_addresses(given))
        setup.gateway.set_circuit(CircuitState.OPEN)
        await setup.pass_time(130)
        [begun] = await hook.wait_for_messages(1)
        setup.gateway.set_circuit(CircuitState.CLOSED)
        await setup.pass_time(300)
        _, over = await hook.wait_for_messages(2)
    assert begun["message"].endswith(
        f"(DhpGatewayNotReady) {runbook}#dhpgatewaynotready\n"
        "Whom to call: Duty {IT}, +998 71 200 00 00"
    )
    assert over["message"].endswith("(DhpGatewayNotReady)")


async def test_short_conditions_cause_no_alert() -> None:
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        for _ in range(5):
            setup.gateway.set_circuit(CircuitState.OPEN)
            await setup.pass_time(90)
            setup.gateway.set_circuit(CircuitState.CLOSED)
            await setup.pass_time(20)
        assert await setup.alert_names(hook) == []


async def test_alerts_of_one_cause_are_one_message() -> None:
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        setup.gateway.tokens = {"default": replace(FAILED, failure="refused", cause="refused")}
        await setup.pass_time(300)
        [begun] = await hook.wait_for_messages(1)
        setup.gateway.tokens = {"default": VALID_TOKEN}
        await setup.pass_time(300)
        _, over = await hook.wait_for_messages(2)
    for sent in (begun, over):
        assert sent["message"].count("\n") == 1
        assert "does not accept the client_id or secret of default" in sent["message"]
        assert "(DhpGatewayNotReady)" in sent["message"]


async def test_errors_during_an_outage_cause_no_further_alert() -> None:
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        setup.gateway.serve(0, *[(200, "")] * 40)
        for minute in range(12):
            setup.gateway.set_circuit(CircuitState.OPEN if minute < 7 else CircuitState.CLOSED)
            failing = minute < 7
            setup.gateway.serve(0, *[(503, "circuit-open") if failing else (200, "")] * 100)
            await setup.pass_time(60)
        assert await setup.alert_names(hook) == ["NotReady", "NotReady"]


def token_failure(failure: str) -> Callable[[AlertSetup], None]:
    def cause(setup: AlertSetup) -> None:
        setup.gateway.tokens = {"default": replace(VALID_TOKEN, failure=failure, cause="refused")}

    return cause


def failed_requests(reason: str, count: int) -> Callable[[AlertSetup], None]:
    def cause(setup: AlertSetup) -> None:
        setup.gateway.serve(0, *[(503, reason)] * count, *[(200, "")] * 50)

    return cause


def many_errors(setup: AlertSetup) -> None:
    setup.minutely = lambda: setup.gateway.serve(0, *[(502, "")] * 12, *[(200, "")] * 8)


def recovery(setup: AlertSetup) -> None:
    setup.gateway.serve(1, *[(502, "")] * 5)
    setup.gateway.found = "answers", "default"


def outbox_report(
    available: bool = True, oldest: float = 0.0, stalled: float = 0.0, **entries: int
) -> Callable[[AlertSetup], None]:
    def cause(setup: AlertSetup) -> None:
        setup.gateway.outbox = {
            "available": available,
            "entries": entries,
            "oldest_seconds": oldest,
            "stalled_seconds": stalled,
        }

    return cause


def certificate_expiry(days: float) -> Callable[[AlertSetup], None]:
    def cause(setup: AlertSetup) -> None:
        setup.certificates["platform-client"] = setup.gateway.clock.wall() + days * DAY

    return cause


def audit_loss(setup: AlertSetup) -> None:
    setup.dropped += 1


CONDITIONS: dict[str, tuple[Callable[[AlertSetup], None], str]] = {
    "not ready": (lambda setup: setup.gateway.set_circuit(CircuitState.OPEN), "NotReady"),
    "overloaded": (failed_requests("overloaded", 6), "Overloaded"),
    "refused": (token_failure("refused"), "SsoRefusing"),
    "transient": (token_failure("transient"), "SsoFailing"),
    "throttled": (token_failure("throttled"), "SsoThrottling"),
    "half of it fails": (many_errors, "PlatformDown"),
    "busy": (failed_requests("upstream-busy", 6), "ConnectionsExhausted"),
    "audit lost": (audit_loss, "AuditDropped"),
    "audit blocked": (
        lambda setup: setattr(setup.gateway, "audit_available", False),
        "AuditUnavailable",
    ),
    "audit blocked for a moment": (failed_requests("audit-unavailable", 1), "AuditUnavailable"),
    "outbox old": (outbox_report(oldest=3700), "OutboxAgeing"),
    "outbox unclear": (outbox_report(unclear=2), "OutboxUnclear"),
    "outbox failed": (outbox_report(failed=3), "OutboxFailed"),
    "outbox away": (outbox_report(available=False), "OutboxUnavailable"),
    "outbox stands still": (outbox_report(stalled=40, waiting=1), "OutboxStandstill"),
    "outbox full": (failed_requests("outbox-full", 1), "OutboxFull"),
    "certificate": (certificate_expiry(20), "CertificateExpiring"),
    "fine": (lambda setup: None, ""),
    "it failed and answers again": (recovery, ""),
    "a burst": (failed_requests("overloaded", 5), ""),
    "outbox waits": (outbox_report(oldest=3500, waiting=9), ""),
    "certificate of a month": (certificate_expiry(22), ""),
}


async def test_each_condition_fires_its_alert() -> None:
    sent: dict[str, list[str]] = {}
    async with Webhook() as hook:
        for name, (cause, _) in CONDITIONS.items():
            hook.messages.clear()
            async with alert_setup(hook.url) as setup:
                cause(setup)
                await setup.pass_time(310)
                sent[name] = await setup.alert_names(hook)
    assert sent == {name: [alert] if alert else [] for name, (_, alert) in CONDITIONS.items()}


async def test_a_message_about_a_thousand_credentials_stays_short() -> None:
    """A chat takes some 4,000 characters."""
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        failing = replace(VALID_TOKEN, failure="refused", cause="refused")
        setup.gateway.tokens = {f"clinic-{number}": failing for number in range(1000)}
        await setup.pass_time(130)
        [sent] = await hook.wait_for_messages(1)
    assert sent["message"].count("(DhpGatewaySsoRefusing)") == 20
    assert sent["message"].endswith("And 980 more: see the status page.")
    assert len(sent["message"]) < 4000


async def test_numbers_are_formatted_in_the_language() -> None:
    async with Webhook() as hook, alert_setup(hook.url, language="ru") as setup:
        outbox_report(oldest=3 * 3600 + 1200, unclear=4)(setup)
        certificate_expiry(2.5)(setup)
        many_errors(setup)
        await setup.pass_time(310)
        text = await hook.text("(DhpGatewayCertificateLastDays)")
    assert "ждут доставки на платформу уже 3 ч 20 мин." in text
    assert "Записи в очереди ждут решения администратора (4)" in text
    assert "Платформа не справляется с 60%" in text
    assert "Сертификат platform-client истекает через 2 д 11 ч." in text


async def test_events_before_the_first_check_cause_no_alert() -> None:
    async with Webhook() as hook:
        setup, given = AlertSetup(), settings(hook.url)
        setup.dropped = 7
        setup.monitor.configure(given, parse_addresses(given))
        await setup.monitor.check_alerts()
        await setup.pass_time(600, 60)
        setup.dropped += 1
        await setup.pass_time(10)
        assert await setup.alert_names(hook) == ["AuditDropped"]
        await setup.monitor.close()


@pytest.mark.parametrize("language", LANGUAGES)
async def test_messages_are_in_the_configured_language(language: str) -> None:
    words = {
        "en": (
            "alert",
            "Resolved after",
            "daily report",
            "Open alerts: 1",
        ),
        "ru": ("тревога", "Устранено, длилось", "сводка за день", "Открытых тревог: 1"),
        "uz": ("ogohlantirish", "Bartaraf etildi", "kunlik hisobot", "Ochiq ogohlantirishlar: 1"),
    }
    async with Webhook() as hook, alert_setup(hook.url, language=language, daily="true") as setup:
        setup.gateway.set_circuit(CircuitState.OPEN)
        await setup.pass_time(150)
        await hook.wait_for_messages(1)
        await setup.pass_time(DAY, 600)
        await hook.wait_for_messages(2)
        setup.gateway.set_circuit(CircuitState.CLOSED)
        await setup.pass_time(80)
        text = "\n".join(
            f"{sent['title']} {sent['message']}" for sent in await hook.wait_for_messages(3)
        )
    for word in words[language]:
        assert word in text


async def test_the_daily_summary() -> None:
    async with Webhook() as hook, alert_setup(hook.url, daily="true") as setup:
        setup.gateway.serve(0, *[(200, "")] * 1234, (502, "upstream-failed"))
        morning = datetime.fromtimestamp(setup.gateway.clock.wall()).replace(
            hour=8, minute=0, second=0
        )
        wait = (morning.timestamp() - setup.gateway.clock.wall()) % DAY or DAY
        setup.gateway.clock.now += wait - 60
        await setup.pass_time(50)
        assert hook.messages == []
        await setup.pass_time(20)
        [first] = await hook.wait_for_messages(1)
        setup.gateway.clock.jump_wall(-3600)
        await setup.pass_time(7200, 600)
        setup.gateway.serve(0, *[(200, "")] * 10)
        setup.gateway.clock.jump_wall(DAY)
        await setup.pass_time(10)
        _, second = await hook.wait_for_messages(2)
        assert await setup.alert_names(hook) == []
        assert len(hook.messages) == 3
    assert first["message"].startswith("Can work continue? Yes. Requests reach the platform.")
    assert "Requests since the last report: 1235, errors: 1." in first["message"]
    assert "Requests since the last report: 10, errors: 0." in second["message"]


async def test_an_unreachable_mail_server_is_retried_with_growing_delays() -> None:
    async with MailServer() as mail, Webhook() as hook, alert_setup(mail.url, hook.url) as setup:
        clock = setup.gateway.clock
        async with mail.stopped():
            setup.gateway.set_circuit(CircuitState.OPEN)
            await setup.pass_time(130)
            pauses = []
            for attempt in range(1, 9):
                await setup.wait_until_counted("failed", attempt)
                await wait_until(lambda: bool(clock.timers))
                pauses.append(clock.next_due())
                if attempt < 8:
                    await clock.advance(pauses[-1])
            setup.gateway.set_circuit(CircuitState.CLOSED)
            await setup.pass_time(80)
            # The other channel does not wait for the one that fails.
            assert len(await hook.wait_for_messages(2)) == 2
        await clock.advance(900)
        [only] = await mail.wait_for_messages(1)
        await setup.wait_until_counted("sent", 3)
    assert pauses == [15, 30, 60, 120, 240, 480, 900, 900]
    assert only["to"] == "duty@clinic.uz"
    assert only["title"] == "DHP Gateway fhir.clinic.uz: resolved"
    assert "(DhpGatewayNotReady)" in only["message"]
    assert only["message"].index("has not been ready") < only["message"].index("Resolved after")


async def test_the_backlog_of_an_address_is_bounded() -> None:
    async with Webhook(status=500) as hook, alert_setup(hook.url) as setup:
        for number in range(60):
            setup.monitor.on_reload("ok" if number % 2 else "failed")
            await setup.pass_time(70)
        await setup.wait_until_counted("failed", 1)
        assert setup.counted["dropped"] == 10
        hook.status = 200
        await setup.gateway.clock.advance(900)
        [only] = await hook.wait_for_messages(1)
    assert only["message"].count("(DhpGatewayReloadFailed)") == 50


async def test_a_reload_keeps_the_backlog_of_remaining_addresses() -> None:
    async with Webhook(status=500) as stays, Webhook() as goes, Webhook() as comes:
        async with alert_setup(stays.url, goes.url) as setup:
            setup.monitor.on_reload("failed")
            await setup.pass_time(10)
            await goes.wait_for_messages(1)
            await setup.wait_until_counted("failed", 1)
            changed = settings(stays.url, comes.url, language="uz")
            setup.monitor.configure(changed, parse_addresses(changed))
            setup.monitor.on_reload("ok")
            await setup.pass_time(70)
            await comes.wait_for_messages(1)
            stays.status = 200
            await setup.gateway.clock.advance(900)
            [both] = await stays.wait_for_messages(1)
        assert len(goes.messages) == 1
    assert both["message"].count("(DhpGatewayReloadFailed)") == 2
    assert "Bartaraf etildi" in comes.messages[0]["message"]


async def test_a_shutdown_causes_no_alert() -> None:
    async with Webhook() as hook, alert_setup(hook.url) as setup:
        setup.gateway.draining = True
        await setup.pass_time(300)
        setup.gateway.draining = False
        assert await setup.alert_names(hook) == []


async def test_addresses_are_masked(log_lines: list[str]) -> None:
    async with Webhook(status=500) as hook, MailServer() as mail:
        wrong = mail.url.replace(PASSWORD, "planted-and-wrong")
        given = settings(hook.url, wrong)
        addresses = parse_addresses(given)
        async with alert_setup(hook.url, wrong) as setup:
            setup.monitor.on_reload("failed")
            await setup.pass_time(10)
            await setup.wait_until_counted("failed", 2)
    shown = "\n".join(
        (repr(given), str(given), repr(addresses), given.model_dump_json(), *log_lines)
    )
    assert "alerts.notify[1] (mailto) accepts no message" in shown
    for secret in ("planted-p", "planted-and", "ssw/rd", "ssw%2Frd"):
        assert secret not in shown
    assert logging.getLogger("urllib3.connectionpool").getEffectiveLevel() > logging.CRITICAL
