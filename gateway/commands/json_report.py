"""The output of `check --json` and `doctor --json`: one document (see docs/operations.md).

Codes and keys are stable, for programs; messages and hints are translated, for operators.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Final

from gateway.commands.findings import CheckResult
from gateway.config import Problem

ReportEntry = dict[str, str]

# Checks whose name holds a setting's key, with the prefix of that key.
_NAMED: Final = {"setting": "", "secret": "", "listener": "", "audit": "", "token": "credentials."}
# The settings that the other checks concern; the first matching beginning counts.
_ABOUT: Final = {
    "SSO page": "sso.authorize_url",
    "SSO": "sso.token_url",
    "platform links": "rewrite.aliases",
    "platform": "platform.fhir_base_url",
    "login": "login",
}


def settings_report(problems: Iterable[Problem], warnings: Iterable[Problem] = ()) -> str:
    """Return the document of the problems and warnings of settings."""
    entries = [_setting("error", problem) for problem in problems]
    return _document(entries + [_setting("warning", warning) for warning in warnings])


def doctor_report(findings: Iterable[CheckResult]) -> str:
    """Return the document of the doctor's check results."""
    return _document([_finding(finding) for finding in findings])


def _document(entries: list[ReportEntry]) -> str:
    ok = all(entry["level"] != "error" for entry in entries)
    return json.dumps({"ok": ok, "findings": entries}, indent=2, ensure_ascii=False)


def _setting(level: str, problem: Problem) -> ReportEntry:
    about = {"level": level, "code": problem.code, "key": problem.key}
    texts = {"message": problem.message, "hint": problem.hint, "source": problem.source}
    return about | {name: str(text) for name, text in texts.items()}


def _finding(finding: CheckResult) -> ReportEntry:
    level = "error" if finding.level == "failed" else finding.level
    code, key = _code_and_key(finding.check)
    about = {"level": level, "code": code, "key": key}
    return about | {"message": str(finding.detail), "hint": str(finding.hint), "source": ""}


def _code_and_key(check: str) -> tuple[str, str]:
    kind, _, name = check.partition(" ")
    if kind in _NAMED:
        return kind, _NAMED[kind] + name
    about = (key for beginning, key in _ABOUT.items() if check.startswith(beginning))
    return check.lower().replace(" ", "-"), next(about, "")
