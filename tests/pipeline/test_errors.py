"""Every row of the error table, as each side of the gateway sees it."""

from __future__ import annotations

import pytest

from gateway import errors
from tests.pipeline.error_table import ERROR_TABLE, judge
from tests.pipeline.provocations import PROVOKED, header_timeout, unknown_path
from tests.pipeline.stage import Stage

# tests/outbox/path provokes it.
ELSEWHERE = {"outbox-full"}
# A bug is planted in a collaborator's place, where compiled code takes nothing but its own.
REASONS = [
    pytest.param(reason, marks=pytest.mark.interpreted) if reason == "internal" else reason
    for reason in PROVOKED
]


def test_every_reason_is_provoked() -> None:
    """No reason is left out but those that are provoked elsewhere."""
    assert set(PROVOKED) == set(ERROR_TABLE) == set(errors.REASONS) - ELSEWHERE


@pytest.mark.parametrize("reason", REASONS)
async def test_failure_as_json(stage: Stage, reason: str) -> None:
    """A caller that asks for nothing in particular gets the row's outcome as JSON in English."""
    await judge(await PROVOKED[reason](stage), reason, ERROR_TABLE[reason])


@pytest.mark.parametrize("reason", REASONS)
async def test_failure_as_xml_in_russian(stage: Stage, reason: str) -> None:
    """A caller that accepts XML and reads Russian gets both, if its request could be read."""
    row = ERROR_TABLE[reason]
    stage.headers = ("Accept: application/fhir+xml", "Accept-Language: ru-RU, en;q=0.5")
    language = "ru" if row.parsed else "en"
    await judge(await PROVOKED[reason](stage), reason, row, language=language, xml=True)


@pytest.mark.parametrize("reason", REASONS)
async def test_failure_by_format_in_uzbek(stage: Stage, reason: str) -> None:
    """`_format` outranks Accept, and Uzbek is spoken to those who ask for it."""
    row = ERROR_TABLE[reason]
    stage.headers = ("Accept: application/fhir+json", "Accept-Language: uz")
    stage.query = "_format=xml"
    language = "uz" if row.parsed else "en"
    await judge(await PROVOKED[reason](stage), reason, row, language=language, xml=True)


@pytest.mark.parametrize("language", ["en", "ru", "uz"])
async def test_default_language(stage: Stage, language: str) -> None:
    """Who names no language gets `fhir.default_language`."""
    stage.fhir = {"default_language": language}
    evidence = await unknown_path(stage)
    await judge(evidence, "unknown-path", ERROR_TABLE["unknown-path"], language=language)


@pytest.mark.parametrize("language", ["en", "ru", "uz"])
async def test_default_language_without_a_request(stage: Stage, language: str) -> None:
    """A request that could not be read is answered in `fhir.default_language`, whatever it said."""
    stage.fhir = {"default_language": language}
    stage.headers = ("Accept-Language: fr, de",)
    evidence = await header_timeout(stage)
    await judge(evidence, "header-timeout", ERROR_TABLE["header-timeout"], language=language)
