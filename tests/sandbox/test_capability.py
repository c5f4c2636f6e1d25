"""The CapabilityStatement, and that it tells the truth."""

from __future__ import annotations

from typing import Any

from gateway.sandbox.data import examples
from tests.sandbox.harness import Trial


async def resources(given: Trial) -> dict[str, Any]:
    """What is declared, by type."""
    statement = (await given.fhir("GET", "/metadata")).json
    return {resource["type"]: resource for resource in statement["rest"][0]["resource"]}


async def test_the_statement_is_of_this_server(given: Trial) -> None:
    """R5, JSON only, and where it is."""
    statement = (await given.fhir("GET", "/metadata")).json
    assert statement["fhirVersion"] == "5.0.0"
    assert statement["implementation"]["url"] == given.sandbox.fhir_base_url
    assert statement["format"] == ["application/fhir+json", "json"]


async def test_the_statement_is_valid(given: Trial) -> None:
    """It satisfies the R5 model."""
    from fhir.resources.capabilitystatement import CapabilityStatement

    CapabilityStatement.model_validate_json((await given.fhir("GET", "/metadata")).body)


async def test_every_declared_parameter_works(given: Trial) -> None:
    """Each is understood, that is to say repeated in the self link."""
    values = {"date": "2026-11-20", "token": "x", "string": "x", "reference": "x", "uri": "urn:x"}
    for type_, resource in (await resources(given)).items():
        query = "&".join(f"{p['name']}={values[p['type']]}" for p in resource["searchParam"])
        answer = await given.fhir("GET", f"/{type_}?{query}")
        assert answer.status == 200, (type_, answer.body)
        assert answer.json["link"][0]["url"] == f"{given.sandbox.fhir_base_url}/{type_}?{query}"


async def test_every_example_has_its_type_declared(given: Trial) -> None:
    """All examples can be found by their types."""
    declared = await resources(given)
    found = {
        type_
        for type_ in declared
        if (await given.fhir("GET", f"/{type_}?_count=0")).json["total"] > 0
    }
    assert found == {resource["resourceType"] for resource in examples("http://x/fhir")}


async def test_interactions_are_declared_as_they_are(given: Trial) -> None:
    """No delete for Consent, no writing of Provenance, conditional create where create is."""
    declared = await resources(given)

    def codes(type_: str) -> set[str]:
        return {interaction["code"] for interaction in declared[type_]["interaction"]}

    assert {"read", "vread", "create", "update", "delete", "search-type"} <= codes("Patient")
    assert {"history-instance", "history-type"} <= codes("Patient")
    assert "delete" not in codes("Consent")
    assert not {"create", "update", "delete"} & codes("Provenance")
    assert declared["Patient"]["conditionalCreate"] is True
    assert declared["Provenance"]["conditionalCreate"] is False
    assert declared["Patient"]["updateCreate"] is False
