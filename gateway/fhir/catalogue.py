"""Generates `docs/errors.md`, in three languages, from the tables of the gateway's errors."""

from __future__ import annotations

import json
import re
from typing import Final

from gateway.errors import (
    REASONS,
    UPSTREAM_NON_FHIR,
    UPSTREAM_UNREACHABLE,
    GatewayError,
    Reason,
    non_fhir_issue_code,
    outcome_text,
)
from gateway.fhir.outcome import render_outcome
from gateway.fhir.texts import guidance_ru, guidance_uz
from gateway.fhir.texts.guidance import GUIDANCE
from gateway.fhir.texts.page_of_errors import WORDS, ErrorPageTexts
from gateway.phrases import LANGUAGE_NAMES

_EXAMPLE_ID: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


# By language and reason: the cause, and what the operator does.
_GUIDANCE: Final[dict[str, dict[str, tuple[str, str]]]] = {
    "en": {reason: (guidance.cause, guidance.remedy) for reason, guidance in GUIDANCE.items()},
    "ru": guidance_ru.GUIDANCE,
    "uz": guidance_uz.GUIDANCE,
}


def markdown(language: str = "en") -> str:
    """Return the complete page in Markdown. It changes only with the tables."""
    words = WORDS[language]
    sections = (_section(reason, language) for reason in REASONS.values())
    return "\n".join(
        (words.introduction, *_examples(language), words.reading, *_table(words), "", *sections)
    )


def _examples(language: str) -> list[str]:
    error = GatewayError(UPSTREAM_UNREACHABLE)
    bodies = [
        render_outcome(error, request_id=_EXAMPLE_ID, language=language, xml=xml, attempts=3)[
            0
        ].decode()
        for xml in (False, True)
    ]
    pretty = json.dumps(json.loads(bodies[0]), indent=2, ensure_ascii=False)
    return [f"```json\n{pretty}\n```\n", f"```xml\n{_indented(bodies[1])}\n```\n"]


def _indented(xml: str) -> str:
    """Return XML with one tag per line. The outcomes of the gateway hold no mixed content."""
    depth = 0
    lines = []
    for tag in re.findall(r"<[^>]+>", xml):
        if tag.startswith("</"):
            depth -= 1
        lines.append("  " * depth + tag)
        if not tag.startswith(("</", "<?")) and not tag.endswith("/>"):
            depth += 1
    return "\n".join(lines)


def _table(words: ErrorPageTexts) -> list[str]:
    head = [f"| {words.columns} |", "| --- | --- | --- | --- | --- |"]
    return head + [
        f"| [{reason.code}](#{reason.code}) | {_status(reason, words)} | {reason.severity} "
        f"| {_issue_code(reason, words)} | {_repeat(reason, words)} |"
        for reason in REASONS.values()
    ]


def _status(reason: Reason, words: ErrorPageTexts) -> str:
    if reason is UPSTREAM_NON_FHIR:
        return words.status_of_platform.format(reason.status)
    return str(reason.status)


def _issue_code(reason: Reason, words: ErrorPageTexts) -> str:
    return words.by_status if reason is UPSTREAM_NON_FHIR else reason.issue_code


def _repeat(reason: Reason, words: ErrorPageTexts) -> str:
    repeat = GUIDANCE[reason.code].repeat
    return words.repeats[repeat] if words.repeats else repeat


def _issue_codes_by_status(words: ErrorPageTexts) -> str:
    """Return the sentence on responses that are not FHIR: statuses that have a specific code."""
    codes = ((status, non_fhir_issue_code(status)) for status in range(400, 600))
    named = ", ".join(f"{status} `{code}`" for status, code in codes if code != "processing")
    return words.issue_codes.format(named)


def _texts(reason: str, language: str) -> list[str]:
    """Return the texts for callers: all three languages in English, else the page's language."""
    if language != "en":
        return _forms(reason, language, "")
    return [line for code, name in LANGUAGE_NAMES.items() for line in _forms(reason, code, name)]


def _forms(reason: str, language: str, name: str) -> list[str]:
    words = WORDS["en" if name else language]
    write, read = (outcome_text(reason, language, write=write) for write in (True, False))
    if write == read:
        return [f"* {name}: {write}" if name else f"> {write}"]
    lead = f"{name}, " if name else ""
    return [f"* {lead}{words.write}: {write}", f"* {lead}{words.read}: {read}"]


def _section(reason: Reason, language: str) -> str:
    words = WORDS[language]
    cause, remedy = _GUIDANCE[language][reason.code]
    return "\n".join(
        (
            f"### {reason.code}",
            "",
            *_texts(reason.code, language),
            "",
            *((_issue_codes_by_status(words), "") if reason is UPSTREAM_NON_FHIR else ()),
            f"**{words.cause}** {cause}",
            "",
            f"**{words.remedy}** {remedy}",
            "",
        )
    )
