"""The example data: what is loaded, and which URLs move."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.sandbox.example_data import EXAMPLE_BASE, PATIENT_ID, examples, relocate, terminology
from gateway.sandbox.fhir.errors import Issue
from gateway.sandbox.fhir.resource_validation import Validator

BASE = "http://127.0.0.1:1/fhir"
LOADED = examples(BASE)


def only(type_: str, **wanted: str) -> Any:
    (found,) = [resource for resource in LOADED if resource["resourceType"] == type_]
    return found


@pytest.mark.parametrize(
    "resource", [*LOADED, *terminology()], ids=lambda r: f"{r['resourceType']}-{r['id'][-2:]}"
)
async def test_examples_are_valid(resource: Any) -> None:
    """What the platform starts with it would also take."""
    issues: list[Issue] = await Validator().issues(resource)
    assert issues == []


def test_each_resource_is_loaded_once() -> None:
    ids = [(resource["resourceType"], resource["id"]) for resource in LOADED]
    assert len(ids) == len(set(ids)) == 27
    assert ("Patient", PATIENT_ID) in ids
    assert "OperationOutcome" not in {type_ for type_, _ in ids}
    assert [type_ for type_, _ in ids].count("Patient") == 3


def test_links_are_relocated() -> None:
    report = only("DiagnosticReport")
    assert report["subject"]["reference"] == f"{BASE}/Patient/{PATIENT_ID}"
    assert report["presentedForm"][0]["url"].startswith(f"{BASE}/Binary/")
    document = only("DocumentReference")
    assert document["content"][0]["attachment"]["url"].startswith(f"{BASE}/Binary/")


def test_identifiers_and_text_are_not_relocated() -> None:
    assert only("DiagnosticReport")["meta"]["source"].startswith(f"{EXAMPLE_BASE}/Device/")
    assert f"{EXAMPLE_BASE}/Patient/" in only("Condition")["note"][0]["text"]
    (event,) = [r for r in LOADED if r["id"].endswith("42")]
    assert event["agent"][1]["networkUri"] == EXAMPLE_BASE
    assert event["agent"][1]["who"]["identifier"]["value"] == EXAMPLE_BASE
    profile = only("Condition")["meta"]["profile"][0]
    assert profile.startswith("https://dhp.uz/fhir/core/")
    (search,) = [r for r in LOADED if r["id"].endswith("41")]
    assert base64.b64decode(search["entity"][1]["query"]).startswith(b"GET /Condition?")


def test_only_the_base_itself_moves() -> None:
    bundle = {
        "link": [{"relation": "self", "url": f"{EXAMPLE_BASE}/Patient?a=b"}],
        "entry": [{"fullUrl": f"{EXAMPLE_BASE}X/Patient/1"}, {"fullUrl": "urn:uuid:1"}],
        "extension": [{"url": f"{EXAMPLE_BASE}/x", "valueReference": {"reference": EXAMPLE_BASE}}],
    }
    assert relocate(bundle, BASE) == {
        "link": [{"relation": "self", "url": f"{BASE}/Patient?a=b"}],
        "entry": [{"fullUrl": f"{EXAMPLE_BASE}X/Patient/1"}, {"fullUrl": "urn:uuid:1"}],
        "extension": [{"url": f"{EXAMPLE_BASE}/x", "valueReference": {"reference": BASE}}],
    }
