"""Names of FHIR in the settings: those that can never match are refused, with the one meant."""

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
        "Patient": [
            "Pateint",
            "patient",
            "PATIENT",
            "Patients",
            "Patient ",
            *(
                "Patient/1",
                "Patient/*",
                "/Patient",
                "fhir/patient",
                "Patient?name=x",
                "Patient.read",
            ),
            "$Patient",
        ],
        "Observation": ["Observaton", "observation"],
        "Practitioner": ["Practicioner"],
        "DiagnosticReport": ["diagnosticreport", "Diagnostic_Report"],
        # Types of FHIR R4 and older, and abstract ones.
        "SubstanceDefinition": ["SubstanceSpecification"],
        None: [
            *("Media", "RequestGroup", "DeviceUseStatement", "BodySite", "CatalogEntry"),
            *("Resource", "DomainResource", "Пациент", "all", "**", ""),
        ],
    },
    "interactions": {
        "search-type": [
            *("serach-type", "search_type", "SearchType", "search", "SEARCH", "Patient/search"),
        ],
        "read": [
            "Read",
            "READ",
            "$read",
            "Patient.read",
            "patient/*.read",
            "/read",
            "read Patient",
        ],
        "update": ["updat"],
        "history-type": ["history"],
        None: ["conditional-create", "everything", ""],
    },
    "operations": {
        # What no name may hold; other order, case or hyphens than FHIR's, or an inner letter.
        "$expand": [
            *("$$expand", "$ex pand", "expand()", "/$expand"),
            *("$exapnd", "$Expand", "EXPAND", "$expnd", "$expannd", "$expond"),
        ],
        "$validate-code": [
            *(
                "$validate code",
                "$valdiate-code",
                "$validateCode",
                "$validate_code",
                "validatecode",
            ),
        ],
        "$lookup": ["$lookpu", "$LookUp"],
        "$everything": [
            *("$evrything", "Patient/$everything", "Patient/everything", "/$everything"),
            *(
                "Patient/123/$everything",
                "/fhir/Patient/1/$everything",
                "$Everything",
                "EVERYTHING",
            ),
            *("Patient/$evrything", "$everything/", "$everything?_count=1", "Patient$everything"),
            *("/everything", "GET Patient/1/$everything"),
        ],
        "$populate": ["Questionnaire/$populate"],
        # Known to the platform alone: what stands behind the sign is its name.
        "$getDrugs": ["Medication/$getDrugs", "/$getDrugs"],
        "$translate": ["$tranclate"],
        "$evaluate-measure": ["$evaluate-mesure"],
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
    """The one problem that settings have, in English; it is said in every language."""
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({**BASE, **settings}, allow_unicode=True), encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    (found,) = caught.value.problems
    assert found.key == key
    assert len({found.line().in_language(language) for language in LANGUAGES}) == len(LANGUAGES)
    return str(found)


@pytest.mark.parametrize(("name", "wrong", "near"), CASES)
def test_what_a_caller_may_do_is_named_as_in_fhir(
    tmp_path: Path, name: str, wrong: str, near: str | None
) -> None:
    """A type, interaction or operation that can never match is refused with the nearest name."""
    callers = [{"name": "lab", "networks": ["10.0.0.0/8"], "allow": {name: ["*", wrong]}}]
    told = problem(tmp_path, f"callers[0].allow.{name}[1]", {"callers": callers})
    assert f"Did you mean {near}?" in told if near else GENERAL[name].lower() in told.lower()


@pytest.mark.parametrize("wrong", ["observaton", "Observations", "Media", "*"])
def test_what_filters_nothing_is_of_a_type_of_r5(tmp_path: Path, wrong: str) -> None:
    """The keys of `fhir.unfiltered` are types, of which none stands for all."""
    settings: dict[str, object] = {"fhir": {"unfiltered": {wrong: ["date"]}}}
    told = problem(tmp_path, f"fhir.unfiltered.{wrong}", settings)
    assert ("Did you mean Observation?" in told) == wrong.lower().startswith("o")


def test_every_name_of_fhir_is_taken(tmp_path: Path) -> None:
    """All types, interactions and operations of R5, and whatever a platform may define itself."""
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
