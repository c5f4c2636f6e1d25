"""A cause has one text: on the page, in a message, in the log and in a command."""

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
from tests.doubles.duty import STATES, Duty, settings


def page(duty: Duty, language: str) -> str:
    """The text of `/status`."""
    text = re.sub(
        r"<[^>]*>", "", render_status_page(duty.status().facts(language), duty.health.components())
    )
    return unescape(text)


def message(duty: Duty, language: str) -> str:
    """What is told once the gateway has not been ready for two minutes."""
    alert = AlertState("DhpGatewayNotReady", "", 0.0, 0.0, None)
    care = worst(duty.health.components())
    return AlertFormatter(language, "here").format_changes([alert], [], care, (0.0, 0.0)).body


async def found(duty: Duty, fault: str) -> None:
    """A probe has found this fault of the platform."""
    duty.found = fault, "default"
    duty.clock.now += 31
    await duty.judgement.probe_if_due()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_platform(fault: str, language: str) -> None:
    """The page and the doctor name it in the same words, page and message give the same advice."""
    duty = Duty()
    await found(duty, fault)
    text = advice(Component("platform", "failed", fault, about="default"), language)
    cause = PLATFORM_CAUSES[fault].in_language(language)
    shown = page(duty, language)
    assert cause in shown
    assert text.replace("`", "") in shown
    assert text in message(duty, language)
    check = platform_fault(fault, Message("why"))
    assert check.detail.in_language(language) == f"{cause} (why)"
    assert text.endswith(check.hint.in_language(language))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("cause", get_args(Cause))
def test_a_cause_of_a_missing_token(cause: Cause, language: str) -> None:
    """Page, log and doctor name it in the same words, page and message give the same advice."""
    duty = Duty()
    STATES[f"token-{cause}"](duty)
    state = duty.tokens["default"]
    assert state.failure is not None
    error = TokenRequestError(
        state.failure, cause, oauth_error=state.oauth_error, status=state.status
    )
    text = TOKEN_CAUSES[cause].meaning.in_language(language)
    care = advice(worst(duty.health.components()), language)
    shown = page(duty, language)
    assert text in shown
    assert care.replace("`", "") in shown
    assert care in message(duty, language)
    assert text in failure_text(error, "default", settings().sso).in_language(language)
    check = token_fault(error, settings(), "default")
    assert text in check.detail.in_language(language)


@pytest.mark.parametrize("state", STATES)
def test_a_state_has_one_advice(state: str) -> None:
    """In every state of a gateway page and message say the same of what is to be done."""
    duty = Duty()
    STATES[state](duty)
    text = duty.status().facts("en")["care"]["text"]
    assert text in message(duty, "en")
    assert text.replace("`", "") in page(duty, "en")
