"""The command line of the commands that check the set-up before a start."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gateway.cli.terminal import (
    CHECK_FAILED,
    WRONG_USAGE,
    as_json_option,
    config_option,
    doctor_report,
    language_option,
    load,
    print_line,
    settings_report,
    settings_source,
)
from gateway.i18n import Message

if TYPE_CHECKING:
    from gateway.config.loader import SettingsSource
    from gateway.config.problems import Problem
    from gateway.config.settings import Settings


@config_option
@as_json_option
@language_option
def check(config: Path | None, as_json: bool, lang: str | None) -> None:
    """Validate the settings and print every problem; opens no connection."""
    settings, found, warnings = _examine_settings(settings_source(config))
    if as_json:
        click.echo(settings_report(found, warnings))
        raise click.exceptions.Exit(WRONG_USAGE if found or settings is None else 0)
    if not _print_check(settings, found, warnings):
        raise click.exceptions.Exit(WRONG_USAGE)


def run_check(source: SettingsSource) -> Settings | None:
    """Print what `check` prints. Return the settings if they can be used."""
    settings, found, warnings = _examine_settings(source)
    return settings if _print_check(settings, found, warnings) else None


def _examine_settings(
    source: SettingsSource,
) -> tuple[Settings | None, list[Problem], list[Problem]]:
    """Return the settings, of wrong ones the right part or None, with problems and warnings."""
    from gateway.config.loader import SettingsError
    from gateway.config.problems import Problem

    found: list[Problem] = []
    settings: Settings | None
    try:
        settings = source.load()
    except SettingsError as error:
        found, settings = [*error.problems], error.right_part
    if settings is None:
        return None, found, []
    from gateway.app.preflight import preflight

    warnings = source.warnings(settings)
    for finding in preflight(settings, {problem.key for problem in found}):
        code = "certificate-expired" if finding.state == "expired" else "setting"
        problem = Problem(finding.key, finding.detail, finding.hint, code=code)
        if finding.state in ("failed", "odd"):
            found.append(problem)
        elif finding.state in ("exposed", "expired"):
            warnings.append(problem)
    return settings, found, warnings


def _print_check(settings: Settings | None, found: list[Problem], warnings: list[Problem]) -> bool:
    """Print warnings and problems. Return whether the settings can be used."""
    for warning in warnings:
        print_line(Message("warning: {warning}", warning=warning.line()), err=True)
    for problem in found:
        print_line(problem.line())
    if found or settings is None:
        return False
    listen = settings.listen
    told = Message(
        "The settings are fine: {listen} leads to {platform}.",
        listen=f"{listen.address}{listen.base_path}",
        platform=settings.platform.fhir_base_url,
    )
    print_line(told, fg="green")
    return True


@config_option
@as_json_option
@language_option
def doctor(config: Path | None, as_json: bool, lang: str | None) -> None:
    """Check the whole set-up, step by step, and say what to do about each fault."""
    source = settings_source(config)
    settings = load(source, as_json=as_json)
    if not print_doctor(settings, source.warnings(settings), as_json=as_json):
        raise click.exceptions.Exit(CHECK_FAILED)


def print_doctor(
    settings: Settings, warnings: Iterable[Problem] = (), *, as_json: bool = False
) -> bool:
    """Print the results of all checks, including the warnings. Return whether none failed."""
    from gateway.cli.doctor import run_checks

    findings = asyncio.run(run_checks(settings, None if as_json else print_line, warnings))
    failed = [finding for finding in findings if finding.level == "failed"]
    if as_json:
        click.echo(doctor_report(findings))
    elif failed:
        count = {"failed": len(failed), "all": len(findings)}
        print_line(Message("{failed} of {all} checks failed.", **count), fg="red")
    else:
        print_line(Message("All is well."), fg="green")
    return not failed
