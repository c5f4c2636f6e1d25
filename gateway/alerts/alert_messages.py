"""The texts of alert messages: alerts that fire, alerts that are resolved, and the daily message.

The sentences of alerts are the summaries of deploy/prometheus/rules/alerts.yml, by the same names;
a test compares them. Placeholders: `instance` is the gateway, `about` a credential or certificate,
`value` the value of the alert. The alert service and `notify --test` format messages with this
module.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import urlsplit

from gateway.alerts.notify_addresses import AlertMessage
from gateway.health.health import ANSWER_WORDS, CARE_ANSWERS, CARE_QUESTION, Component, advice
from gateway.i18n import Message, format_span

if TYPE_CHECKING:
    from gateway.alerts.alert_rules import Value
    from gateway.config.settings import Settings


@dataclass(slots=True)
class AlertState:
    """One alert. Times are those of evaluations in which its condition held, monotonic.

    `is_notified`: the alert fires and has been notified; otherwise it is pending.
    """

    name: str
    about: str
    first_seen_at: float
    last_seen_at: float
    value: Value
    is_notified: bool = False


ALERT_MESSAGES: Final = {
    "DhpGatewayNotReady": Message("The gateway {instance} has not been ready for 2 minutes"),
    "DhpGatewayReloadFailed": Message(
        "New settings of {instance} were refused; the old ones stay in force"
    ),
    "DhpGatewayOverloaded": Message("The gateway {instance} refuses requests: too many at once"),
    "DhpGatewaySsoRefusing": Message("The SSO does not accept the client_id or secret of {about}"),
    "DhpGatewaySsoFailing": Message(
        "The SSO gives no token for {about}: it cannot be reached, or it fails"
    ),
    "DhpGatewaySsoThrottling": Message("The SSO reports that {about} requests tokens too often"),
    "DhpGatewayPlatformDown": Message("The platform fails for {value} of the requests"),
    "DhpGatewayConnectionsExhausted": Message("All connections to the platform are in use"),
    "DhpGatewayAuditDropped": Message("Audit records are lost"),
    "DhpGatewayAuditUnavailable": Message(
        "Requests are refused because the audit cannot be written"
    ),
    "DhpGatewayOutboxAgeing": Message(
        "Queued writes have been waiting for {value} to reach the platform"
    ),
    "DhpGatewayOutboxUnclear": Message(
        "{value} queued writes need a decision: it is not known whether the platform has them"
    ),
    "DhpGatewayOutboxFailed": Message("The platform refused {value} queued writes"),
    "DhpGatewayOutboxUnavailable": Message("The outbox cannot be reached"),
    "DhpGatewayOutboxStandstill": Message(
        "The outbox delivers nothing, although the platform works"
    ),
    "DhpGatewayOutboxFull": Message("The outbox is full: no more writes are accepted"),
    "DhpGatewayCertificateExpiring": Message("The certificate {about} expires in {value}"),
    "DhpGatewayCertificateLastDays": Message(
        "The certificate {about} expires within three days, or has expired"
    ),
    "title:begun": Message("DHP Gateway {instance}: alert"),
    "title:over": Message("DHP Gateway {instance}: resolved"),
    "title:daily": Message("DHP Gateway {instance}: daily report"),
    "title:test": Message("DHP Gateway {instance}: test"),
    "begun": Message("{at} {sentence}. {care}"),
    "over": Message("{at} Resolved after {lasted}: {sentence}."),
    "more": Message("And {count} more: see the status page."),
    "daily": Message(
        "{question} {answer}. {care} Requests since the last report: {requests}, errors: {errors}. "
        "Open alerts: {open}."
    ),
    "contact": Message("Whom to call: {contact}"),
    "test": Message(
        "This is a test message of the gateway {instance}. Alerts of this gateway will reach the "
        "same recipients. Nothing has to be done."
    ),
}

# Lines of a message, without the last one, the contact. Chats take some 4,000 characters.
_MAX_LINES: Final = 20
_IN_SECONDS: Final = ("DhpGatewayOutboxAgeing", "DhpGatewayCertificateExpiring")


@dataclass(frozen=True, slots=True)
class AlertFormatter:
    """Formats messages of one gateway, which is named `instance`, in one language.

    Alerts that fire link to their section of the runbook. `contact` is whom to call; it ends each
    message but those of resolved alerts only.
    """

    language: str
    instance: str
    contact: str | None = None
    runbook_url: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """Return the formatter for the settings.

        The instance is the host of `listen.public_url`, else the host name of this machine.
        """
        url = settings.listen.public_url
        host = urlsplit(url).hostname if url else None
        admin = settings.admin
        return cls(
            settings.alerts.language,
            host or socket.gethostname(),
            admin.contact,
            admin.runbook_url,
        )

    def format_changes(
        self,
        begun: Sequence[AlertState],
        over: Sequence[AlertState],
        care: Component,
        now: tuple[float, float],
    ) -> AlertMessage:
        """Return a message with one line for each alert that fires or is resolved.

        Of many, as where a thousand credentials get no token, it has the first.
        `care` is the worst component, which says why the gateway is not ready. `now` is the current
        time by the monotonic and by the wall clock.
        """
        moment, wall = now
        lines = [
            self._line(
                "begun",
                alert,
                at=wall - (moment - alert.first_seen_at),
                care=advice(care, self.language) if alert.name == "DhpGatewayNotReady" else "",
            )
            for alert in begun
        ]
        lines += [
            self._line(
                "over",
                alert,
                at=wall - (moment - alert.last_seen_at),
                lasted=format_span(round(alert.last_seen_at - alert.first_seen_at), self.language),
            )
            for alert in over
        ]
        if len(lines) > _MAX_LINES:
            lines[_MAX_LINES:] = [self._text("more").format(count=len(lines) - _MAX_LINES)]
        return self._message("begun" if begun else "over", "\n".join(lines))

    def format_daily(self, care: Component, traffic: tuple[int, int], still: int) -> AlertMessage:
        """Return the daily message; `still` is the number of alerts that are not resolved."""
        answer = ANSWER_WORDS[CARE_ANSWERS[care.state]]
        body = self._text("daily").format(
            question=CARE_QUESTION.in_language(self.language),
            answer=answer.in_language(self.language),
            care=advice(care, self.language),
            requests=traffic[0],
            errors=traffic[1],
            open=still,
        )
        return self._message("daily", body)

    def format_test(self) -> AlertMessage:
        """Return a message that shows that messages arrive."""
        return self._message("test", self._text("test").format(instance=self.instance))

    def _message(self, kind: str, body: str) -> AlertMessage:
        if self.contact and kind != "over":
            body += "\n" + self._text("contact").format(contact=self.contact)
        return AlertMessage(kind, self._text(f"title:{kind}").format(instance=self.instance), body)

    def _line(self, kind: str, alert: AlertState, *, at: float, **words: str) -> str:
        moment = datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M %z")
        sentence = self._text(alert.name).format(
            instance=self.instance,
            about=alert.about,
            value=self._figure(alert.name, alert.value),
        )
        line = self._text(kind).format(at=moment, sentence=sentence, **words)
        # Operators find the alert in the runbook by its name.
        line = f"{line.rstrip()} ({alert.name})"
        if self.runbook_url and kind == "begun":
            return f"{line} {self.runbook_url}#{alert.name.lower()}"
        return line

    def _figure(self, name: str, value: Value) -> str:
        if value is None:
            return ""
        if name in _IN_SECONDS:
            return format_span(round(value), self.language)
        return f"{value:.0%}" if name == "DhpGatewayPlatformDown" else str(value)

    def _text(self, key: str) -> str:
        return ALERT_MESSAGES[key].in_language(self.language)
