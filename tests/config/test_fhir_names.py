"""FHIR names in the settings: unknown ones are problems that suggest the nearest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from gateway.config.loader import SettingsError, load_settings
from gateway.fhir.vocabulary import INTERACTIONS, OPERATIONS, RESOURCE_TYPES
from gateway.i18n import LANGUAGES

BASE = {
    "environment": "dhp-playground",
    "credentials": {"default": {"client_id": "a", "client_secret_file": "/run/s"}},
}
GENERAL = {
    "interactions": "use * or some of read, vread",
    "resources": "use * or types such as Patient",
    "operations": "use * or names such as $expand",
}

# What is written, by the name that the problem proposes; None where none is near.
WRONG: dict[str, dict[str | None, list[str]]] = {
    "resources": {
        "Patient": ["Pateint", "patient", "Patient ", "Patient/1", "/Patient", "Patient.read"],
        "Observation": ["Observaton", "observation"],
        "DiagnosticReport": ["Diagnostic_Report"],
        # Types of FHIR R4 and older, and abstract ones.
        "SubstanceDefinition": ["SubstanceSpecification"],
        None: ["Media", "Resource", "Пациент", "**", ""],
    },
    "interactions": {
        "search-type": ["serach-type", "SearchType", "search", "Patient/search"],
        "read": ["READ", "$read", "patient/*.read", "read Patient"],
        "history-type": ["history"],
        None: ["conditional-create", ""],
    },
    "operations": {
        "$expand": [
            "$$expand",
            "$ex pand",
            "expand()",
            "/$expand",
            "$exapnd",
            "EXPAND",
            "$expond",
            "$expannd",
        ],
        "$validate-code": ["$validate code", "$validateCode", "validatecode"],
        "$everything": ["$evrything", "Patient/123/$everything", "$everything?_count=1"],
        # Known to the platform alone: what stands behind the sign is its name.
        "$getDrugs": ["Medication/$getDrugs", "/$getDrugs"],
        None: ["$", "", "$выгрузка", "$1"],
    },
}
CASES = [
    (name, wrong, near)
    for name, table in WRONG.items()
    for near, several in table.items()
    for wrong in several
]

# A platform may define operations of its own, also such as look like those of FHIR.
OWN_OPERATIONS = (
    *("$last", "$documents", "$event", "$history", "$summary", "$everything-v2", "$find-patient"),
    *("$getDrugs", "$dhp.status", "$merge_cards", "$v2", "reindex", "$validate-card"),
)


def problem(tmp_path: Path, key: str, settings: dict[str, object]) -> str:
    """Return the only problem of settings in English; it must be translated."""
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({**BASE, **settings}, allow_unicode=True), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    (found,) = caught.value.problems
    assert found.key == key
    assert len({found.line().in_language(language) for language in LANGUAGES}) == len(LANGUAGES)
    return str(found)


@pytest.mark.parametrize(("name", "wrong", "near"), CASES)
def test_unknown_fhir_names_are_problems_that_suggest_the_nearest(
    tmp_path: Path, name: str, wrong: str, near: str | None
) -> None:
    callers = [{"name": "lab", "networks": ["10.0.0.0/8"], "allow": {name: ["*", wrong]}}]
    told = problem(tmp_path, f"callers[0].allow.{name}[1]", {"callers": callers})
    assert f"Did you mean {near}?" in told if near else GENERAL[name].lower() in told.lower()


@pytest.mark.parametrize("wrong", ["observaton", "Observations", "Media", "*"])
def test_unfiltered_names_types_of_r5(tmp_path: Path, wrong: str) -> None:
    settings: dict[str, object] = {"fhir": {"unfiltered": {wrong: ["date"]}}}
    told = problem(tmp_path, f"fhir.unfiltered.{wrong}", settings)
    assert ("Did you mean Observation?" in told) == wrong.lower().startswith("o")


def test_every_fhir_name_and_custom_operation_is_accepted(tmp_path: Path) -> None:
    operations = [f"${name}" for name in sorted(OPERATIONS)]
    allow = {
        "interactions": ["*", *INTERACTIONS],
        "resources": ["*", *sorted(RESOURCE_TYPES)],
        "operations": ["*", *operations, *OPERATIONS, *OWN_OPERATIONS],
    }
    callers = [{"name": "lab", "networks": ["10.0.0.0/8"], "allow": allow}]
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({**BASE, "callers": callers}))
    assert load_settings(file, {}).callers[0].allow.operations == tuple(allow["operations"])
