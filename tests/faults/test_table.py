"""Every row of the table of faults, as each side of the gateway sees it."""

from __future__ import annotations

import logging

import pytest

from gateway import errors
from tests.doubles.rest import come_to_rest
from tests.faults.judgement import Row, judge
from tests.faults.table import FAULTS, REASONS, header_timeout, unknown_path
from tests.pipeline.stage import Stage

# tests/outbox/path provokes it.
ELSEWHERE = {"outbox-full"}


def named(names: dict[str, object]) -> list[object]:
    """The parameters of these faults."""
    # A bug is planted in a collaborator's place, where compiled code takes nothing but its own.
    bug = pytest.param("internal", marks=pytest.mark.interpreted)
    return [bug if name == "internal" else name for name in names]


def test_every_reason_is_provoked() -> None:
    """No reason is left out but those that are provoked elsewhere."""
    assert set(REASONS) == set(errors.REASONS) - ELSEWHERE


@pytest.mark.parametrize("name", named(FAULTS))
async def test_fault(stage: Stage, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """A caller that asks for nothing in particular gets the row's outcome as JSON in English."""
    caplog.set_level(logging.INFO)
    fault = FAULTS[name]
    evidence = await fault.provoke(stage)
    await judge(evidence, fault.reason, fault.row)
    if fault.row.logged:
        judge_log(caplog.records, fault.reason, fault.row)
    if name not in REASONS:
        await come_to_rest(evidence.gateway)


def judge_log(records: list[logging.LogRecord], reason: str, row: Row) -> None:
    """Check that the log tells of it in a sentence, as loud as it is urgent, and its facts apart.

    Callers' mistakes are information, outages warnings, what an operator must mend errors. A search
    for a request, a caller or a reason needs no pattern for sentences.
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
@pytest.mark.parametrize("reason", named(REASONS))
async def test_fault_in_another_form(stage: Stage, reason: str, form: str) -> None:
    """A caller gets the format and the language that it names, if its request could be read."""
    fault = REASONS[reason]
    language, stage.query, accept, languages = FORMS[form]
    stage.headers = (accept, f"Accept-Language: {languages}")
    language = language if fault.row.parsed else "en"
    await judge(await fault.provoke(stage), reason, fault.row, language=language, xml=True)


@pytest.mark.parametrize(
    ("provoke", "reason", "accepted"),
    [
        pytest.param(unknown_path, "unknown-path", (), id="none named"),
        pytest.param(
            header_timeout, "header-timeout", ("Accept-Language: fr, de",), id="request not read"
        ),
    ],
)
@pytest.mark.parametrize("language", ["en", "ru", "uz"])
async def test_default_language(
    stage: Stage, language: str, provoke: object, reason: str, accepted: tuple[str, ...]
) -> None:
    """Without a language that could be read, it is `fhir.default_language`."""
    stage.fhir = {"default_language": language}
    stage.headers = accepted
    await judge(await provoke(stage), reason, REASONS[reason].row, language=language)
