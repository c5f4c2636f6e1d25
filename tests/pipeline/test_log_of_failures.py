"""How the log tells of requests that failed."""

from __future__ import annotations

import logging

import pytest

from tests.pipeline.provocations import PROVOKED
from tests.pipeline.stage import Stage

SAID = {
    "bad-request": (logging.INFO, "path: dot segment"),
    "unknown-path": (logging.INFO, "the path is not below base-path=/fhir"),
    "token-refused": (logging.ERROR, "our client is refused (status"),
    "token-rejected": (logging.ERROR, "the platform refused a fresh token"),
    "upstream-tls": (logging.ERROR, "its CA goes into platform.ca_file"),
    "upstream-unreachable": (logging.WARNING, "nothing listens there, or a firewall is between"),
    "upstream-failed": (logging.WARNING, "the platform"),
    "upstream-timeout": (logging.WARNING, "the platform did not answer in time"),
    "upstream-non-fhir": (logging.WARNING, "the platform's answer is not FHIR (status 404)"),
    "sso-unavailable": (logging.WARNING, "the SSO"),
    "circuit-open": (logging.WARNING, "it is tried again in"),
}


@pytest.mark.parametrize("reason", SAID)
async def test_a_failure_is_a_sentence_as_loud_as_it_is_urgent(
    stage: Stage, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers' mistakes are information, outages warnings, what an operator must mend errors."""
    caplog.set_level(logging.INFO)
    await PROVOKED[reason](stage)
    said = [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.getMessage().startswith(reason)
    ]
    level, words = SAID[reason]
    assert said
    assert {each[0] for each in said} == {level}
    assert words in said[0][1]
    assert "Error" not in said[0][1]


@pytest.mark.parametrize("reason", SAID)
async def test_a_failure_has_its_facts_as_fields(
    stage: Stage, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Who looks for a request, a caller or a reason needs no pattern for sentences."""
    caplog.set_level(logging.INFO)
    await PROVOKED[reason](stage)
    lines = [
        record.msg
        for record in caplog.records
        if record.name == "gateway.pipeline.handler" and record.msg["event"].startswith(reason)
    ]
    assert lines
    for line in lines:
        assert line["reason"] == reason
        assert line["request_id"]
        assert line["request_id"] not in line["event"]
        assert line["caller"] == "anonymous"
    if reason.startswith(("token", "sso", "upstream", "circuit")):
        assert lines[0]["credential"] == "default"
