"""The commands that look whether all is well before a start, as the command line sees them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from gateway.commands.shared import (
    CHECK_FAILED,
    WRONG_USAGE,
    AsJson,
    ConfigOption,
    load,
    settings_source,
)
from gateway.commands.terminal import LanguageOption, say
from gateway.phrases import Phrase

if TYPE_CHECKING:
    from gateway.config import Problem, Settings, SettingsSource


def check(
    config: ConfigOption = None, as_json: AsJson = False, lang: LanguageOption = None
) -> None:
    """Validate the settings and print every problem; opens no connection."""
    settings, found, warnings = _looked_at(settings_source(config))
    if as_json:
        from gateway.commands import json_report

        typer.echo(json_report.of_settings(found, warnings))
        raise typer.Exit(WRONG_USAGE if found or settings is None else 0)
    if not _told(settings, found, warnings):
        raise typer.Exit(WRONG_USAGE)


def checked(source: SettingsSource) -> Settings | None:
    """Say what `check` says; the settings if they can be used."""
    settings, found, warnings = _looked_at(source)
    return settings if _told(settings, found, warnings) else None


def _looked_at(source: SettingsSource) -> tuple[Settings | None, list[Problem], list[Problem]]:
    """The settings, as far as they can be had, with problems and warnings."""
    from gateway.config import SettingsError

    found: list[Problem] = []
    settings: Settings | None
    try:
        settings = source.load()
    except SettingsError as error:
        found += error.problems
        settings = error.partial_settings
    if settings is None:
        return None, found, []
    from gateway.commands import check as command

    found += command.problems(settings, {problem.key for problem in found})
    return settings, found, [*source.warnings(settings), *command.warnings(settings)]


def _told(settings: Settings | None, found: list[Problem], warnings: list[Problem]) -> bool:
    """Whether the settings can be used, once all is said."""
    for warning in warnings:
        say(Phrase("warning: {warning}", warning=warning.line()), err=True)
    for problem in found:
        say(problem.line())
    if found or settings is None:
        return False
    listen = settings.listen
    told = Phrase(
        "The settings are fine: {listen} leads to {platform}.",
        listen=f"{listen.address}{listen.base_path}",
        platform=settings.platform.fhir_base_url,
    )
    say(told, fg="green")
    return True


def doctor(
    config: ConfigOption = None, as_json: AsJson = False, lang: LanguageOption = None
) -> None:
    """Check the whole set-up, step by step, and say what to do about each fault."""
    source = settings_source(config)
    settings = load(source, as_json=as_json)
    if not examined(settings, source.warnings(settings), as_json=as_json):
        raise typer.Exit(CHECK_FAILED)


def examined(
    settings: Settings, warnings: Iterable[Problem] = (), *, as_json: bool = False
) -> bool:
    """Say what the doctor finds, the warnings among it; whether all is well."""
    from gateway.commands import doctor as command
    from gateway.commands import json_report

    findings = asyncio.run(command.run(settings, None if as_json else say, warnings))
    failed = [finding for finding in findings if finding.state == "failed"]
    if as_json:
        typer.echo(json_report.of_findings(findings))
    elif failed:
        count = {"failed": len(failed), "all": len(findings)}
        say(Phrase("{failed} of {all} checks failed.", **count), fg="red")
    else:
        say(Phrase("All is well."), fg="green")
    return not failed
