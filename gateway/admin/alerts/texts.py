"""The texts of alert messages.

The sentences of alerts are the summaries of deploy/prometheus/rules/alerts.yml, by the same names;
tests/admin/alerts/test_texts.py compares them. Placeholders: `instance` is the gateway, `about` a
credential or certificate, `value` the value of the alert.
"""

from __future__ import annotations

from typing import Final

from gateway.i18n import Message, in_all_languages

ALERT_MESSAGES: Final = {
    "DhpGatewayNotReady": Message("The gateway {instance} has not been ready for 2 minutes"),
    "DhpGatewayReloadFailed": Message(
        "New settings of {instance} were refused; the old ones stay in force"
    ),
    "DhpGatewayOverloaded": Message("The gateway {instance} turns requests away: too many at once"),
    "DhpGatewaySsoRefusing": Message("The SSO refuses the client or the secret of {about}"),
    "DhpGatewaySsoFailing": Message(
        "The SSO gives no token for {about}: it is out of reach or fails"
    ),
    "DhpGatewaySsoThrottling": Message("The SSO says that {about} asks too often"),
    "DhpGatewayPlatformDown": Message("The platform fails for {value} of the requests"),
    "DhpGatewayConnectionsExhausted": Message("All connections to the platform are in use"),
    "DhpGatewayAuditDropped": Message("Audit records are lost"),
    "DhpGatewayAuditUnavailable": Message(
        "Requests are refused because the audit cannot be written"
    ),
    "DhpGatewayOutboxAgeing": Message(
        "Results have been waiting for {value} to reach the platform"
    ),
    "DhpGatewayOutboxUnclear": Message(
        "{value} queued writes need a person: it is not known whether the platform has them"
    ),
    "DhpGatewayOutboxFailed": Message("The platform refused {value} queued writes"),
    "DhpGatewayOutboxUnavailable": Message(
        "The outbox cannot be reached: writes cannot be queued, and those that wait are not "
        "delivered"
    ),
    "DhpGatewayOutboxFull": Message("The outbox is full: writes are not taken any more"),
    "DhpGatewayCertificateExpiring": Message("The certificate {about} expires in {value}"),
    "DhpGatewayCertificateLastDays": Message(
        "The certificate {about} ends within three days, or has ended"
    ),
    "title:begun": Message("DHP Gateway {instance}: something is wrong"),
    "title:over": Message("DHP Gateway {instance}: over"),
    "title:daily": Message("DHP Gateway {instance}: the daily line"),
    "title:test": Message("DHP Gateway {instance}: test"),
    "begun": Message("{at} {sentence}. {care}"),
    "over": Message("{at} Over, after {lasted}: {sentence}."),
    "daily": Message(
        "{question} {answer}. {care} Requests since the last such line: {requests}, errors "
        "among them: {errors}. Alerts that are not over: {open}."
    ),
    "test": Message(
        "This is a test message of the gateway {instance}: whoever reads it will be told "
        "when something is wrong. Nothing has to be done."
    ),
}

ALERT_TEXTS: Final = in_all_languages(ALERT_MESSAGES)
