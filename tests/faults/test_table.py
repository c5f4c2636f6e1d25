"""Every row of the table of faults, at caller, platform, SSO, audit, metrics and log."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest

from gateway import errors
from tests.doubles.waiting import wait_until_idle
from tests.faults.judgement import Row, assert_result
from tests.faults.table import CROSSED, FAULTS, REASONS
from tests.pipeline.testbed import Testbed

# tests/outbox/path provokes it.
ELSEWHERE = {"outbox-full"}


def parameters_of(names: Iterable[str]) -> list[object]:
    # A bug is planted in a collaborator's place, where compiled code takes nothing but its own.
    marked = {"internal": pytest.mark.interpreted, **dict.fromkeys(CROSSED, pytest.mark.ci)}
    return [pytest.param(name, marks=marked.get(name, ())) for name in names]


def test_every_reason_is_provoked() -> None:
    assert set(REASONS) == set(errors.REASONS) - ELSEWHERE


@pytest.mark.parametrize("name", parameters_of(FAULTS))
async def test_fault(testbed: Testbed, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Without preferences of the caller, the outcome is JSON in English."""
    caplog.set_level(logging.INFO)
    fault = FAULTS[name]
    evidence = await fault.provoke(testbed)
    await assert_result(evidence, fault.reason, fault.row)
    if fault.row.logged:
        assert_logged(caplog.records, fault.reason, fault.row)
    if name not in REASONS:
        await wait_until_idle(evidence.gateway)


def assert_logged(records: list[logging.LogRecord], reason: str, row: Row) -> None:
    """Check that the log has a sentence at the level of its urgency, and facts as fields.

    Errors of callers are information, outages warnings, what an operator must act on errors.
    """
    said = [record for record in records if record.getMessage().startswith(reason)]
    level, words = row.logged or (0, "")
    assert {record.levelno for record in said} == {level}
    assert words in said[0].getMessage()
    assert "Error" not in said[0].getMessage()
    lines = [record.msg for record in said if record.name == "gateway.pipeline.handler"]
    assert lines
    for line in lines:
        assert line["reason"] == reason
        assert line["request_id"]
        assert line["request_id"] not in line["event"]
        assert line["caller"] == "anonymous"
    if reason.startswith(("token", "sso", "upstream", "circuit")):
        assert lines[0]["credential"] == "default"


FORMS = {
    "XML in Russian": ("ru", "", "Accept: application/fhir+xml", "ru-RU, en;q=0.5"),
    # `_format` outranks Accept.
    "_format in Uzbek": ("uz", "_format=xml", "Accept: application/fhir+json", "uz"),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("reason", parameters_of(REASONS))
async def test_fault_in_another_format_and_language(
    testbed: Testbed, reason: str, form: str
) -> None:
    """As the caller requests, if its request could be parsed."""
    fault = REASONS[reason]
    language, testbed.query, accept, languages = FORMS[form]
    testbed.headers = (accept, f"Accept-Language: {languages}")
    language = language if fault.row.parsed else "en"
    await assert_result(
        await fault.provoke(testbed), reason, fault.row, language=language, xml=True
    )


@pytest.mark.parametrize(
    ("reason", "accepted"),
    [
        pytest.param("unknown-path", (), id="none named"),
        pytest.param("header-timeout", ("Accept-Language: fr, de",), id="request not read"),
    ],
)
@pytest.mark.parametrize("language", ["en", "ru", "uz"])
async def test_default_language(
    testbed: Testbed, language: str, reason: str, accepted: tuple[str, ...]
) -> None:
    testbed.fhir = {"default_language": language}
    testbed.headers = accepted
    fault = REASONS[reason]
    await assert_result(await fault.provoke(testbed), reason, fault.row, language=language)
