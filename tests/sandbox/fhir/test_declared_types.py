"""The CapabilityStatement, and that it tells the truth."""

from __future__ import annotations

from typing import Any

from gateway.sandbox.example_data import examples, terminology
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
    values = dict.fromkeys(("token", "string", "reference", "composite", "special"), "x")
    values |= {"date": "2026-11-20", "uri": "urn:x", "number": "1", "quantity": "1"}
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
    loaded = [*examples("http://x/fhir"), *terminology()]
    assert found == {resource["resourceType"] for resource in loaded}


def codes(resource: Any) -> set[str]:
    """The interactions that are declared for a type."""
    return {interaction["code"] for interaction in resource["interaction"]}


async def test_interactions_are_declared_as_the_playground_does(given: Trial) -> None:
    """No delete for Consent and conformance types, no writing of Provenance, no system level."""
    declared = await resources(given)
    everything = {"create", "read", "vread", "update", "delete", "history-instance", "search-type"}
    assert codes(declared["Patient"]) == everything
    assert codes(declared["CodeSystem"]) == codes(declared["Consent"]) == everything - {"delete"}
    assert codes(declared["AuditEvent"]) == {"create", "read", "search-type"}
    assert codes(declared["Provenance"]) == {"read", "search-type"}
    statement = (await given.fhir("GET", "/metadata")).json
    assert "interaction" not in statement["rest"][0]


async def test_no_condition_is_declared(given: Trial) -> None:
    """As on the playground, for any type."""
    for resource in (await resources(given)).values():
        flags = ("conditionalCreate", "conditionalUpdate", "conditionalPatch", "updateCreate")
        assert not any(resource[flag] for flag in flags)
        assert {resource["conditionalRead"], resource["conditionalDelete"]} == {"not-supported"}


async def test_the_operations_are_those_of_the_playground(given: Trial) -> None:
    """Terminology only, and `$validate` not."""
    declared = {
        type_: {operation["name"] for operation in resource["operation"]}
        for type_, resource in (await resources(given)).items()
        if "operation" in resource
    }
    assert declared == {
        "CodeSystem": {"lookup", "subsumes", "validate-code"},
        "ConceptMap": {"translate"},
        "ValueSet": {"expand", "validate-code"},
    }


async def test_the_lenient_one_declares_what_it_does(lenient: Trial) -> None:
    """Conditional create where create is, type histories, Bundles, and `$validate`."""
    declared = await resources(lenient)
    assert {"history-instance", "history-type"} <= codes(declared["Patient"])
    assert declared["Patient"]["conditionalCreate"] is True
    assert declared["Provenance"]["conditionalCreate"] is False
    assert declared["Patient"]["operation"][0]["name"] == "validate"
    statement = (await lenient.fhir("GET", "/metadata")).json
    assert {each["code"] for each in statement["rest"][0]["interaction"]} == {
        "transaction",
        "batch",
    }
