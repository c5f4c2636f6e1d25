"""Page, alert message, log and commands use one text for a cause."""

from __future__ import annotations

import re
from html import unescape
from typing import get_args

import pytest

from gateway.admin.status_page import render_status_page
from gateway.alerts.alert_messages import AlertFormatter
from gateway.alerts.alert_service import AlertState
from gateway.cli.doctor import platform_fault
from gateway.cli.doctor_sso import token_fault
from gateway.guidance import PLATFORM_CAUSES
from gateway.health.evidence import FAULTS
from gateway.health.health import Component, advice, worst
from gateway.i18n import LANGUAGES, Message
from gateway.oauth.token_failures import TOKEN_CAUSES, failure_text
from gateway.oauth.token_response import Cause, TokenRequestError
from tests.doubles.gateway_states import STATES, GatewayState, settings


def page(gateway: GatewayState, language: str) -> str:
    """Return the text of `/status`."""
    text = re.sub(
        r"<[^>]*>",
        "",
        render_status_page(gateway.status().facts(language), gateway.health.components()),
    )
    return unescape(text)


def message(gateway: GatewayState, language: str) -> str:
    """Return the alert message after two minutes without readiness."""
    alert = AlertState("DhpGatewayNotReady", "", 0.0, 0.0, None)
    care = worst(gateway.health.components())
    return AlertFormatter(language, "here").format_changes([alert], [], care, (0.0, 0.0)).body


async def record_probe(gateway: GatewayState, fault: str) -> None:
    gateway.found = fault, "default"
    gateway.clock.now += 31
    await gateway.judgement.probe_if_due()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_platform(fault: str, language: str) -> None:
    """The page and the doctor name it in the same words, page and message give the same advice."""
    gateway = GatewayState()
    await record_probe(gateway, fault)
    text = advice(Component("platform", "failed", fault, about="default"), language)
    cause = PLATFORM_CAUSES[fault].in_language(language)
    shown = page(gateway, language)
    assert cause in shown
    assert text.replace("`", "") in shown
    assert text in message(gateway, language)
    check = platform_fault(fault, Message("why"))
    assert check.detail.in_language(language) == f"{cause} (why)"
    assert text.endswith(check.hint.in_language(language))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("cause", get_args(Cause))
def test_a_cause_of_a_missing_token_has_one_text(cause: Cause, language: str) -> None:
    """And one advice."""
    gateway = GatewayState()
    STATES[f"token-{cause}"](gateway)
    state = gateway.tokens["default"]
    assert state.failure is not None
    error = TokenRequestError(
        state.failure, cause, oauth_error=state.oauth_error, status=state.status
    )
    text = TOKEN_CAUSES[cause].meaning.in_language(language)
    care = advice(worst(gateway.health.components()), language)
    shown = page(gateway, language)
    assert text in shown
    assert care.replace("`", "") in shown
    assert care in message(gateway, language)
    assert text in failure_text(error, "default", settings().sso).in_language(language)
    check = token_fault(error, settings(), "default")
    assert text in check.detail.in_language(language)


@pytest.mark.parametrize("state", STATES)
def test_a_state_has_one_advice(state: str) -> None:
    gateway = GatewayState()
    STATES[state](gateway)
    text = gateway.status().facts("en")["care"]["text"]
    assert text in message(gateway, "en")
    assert text.replace("`", "") in page(gateway, "en")
