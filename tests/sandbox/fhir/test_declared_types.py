"""The CapabilityStatement matches the behaviour."""

from __future__ import annotations

from typing import Any

from gateway.sandbox.example_data import examples, terminology
from tests.sandbox.harness import SandboxClient


async def resources(client: SandboxClient) -> dict[str, Any]:
    statement = (await client.fhir("GET", "/metadata")).json
    return {resource["type"]: resource for resource in statement["rest"][0]["resource"]}


async def test_the_statement_names_this_server(client: SandboxClient) -> None:
    statement = (await client.fhir("GET", "/metadata")).json
    assert statement["fhirVersion"] == "5.0.0"
    assert statement["implementation"]["url"] == client.sandbox.fhir_base_url
    assert statement["format"] == ["application/fhir+json", "json"]


async def test_the_statement_is_valid(client: SandboxClient) -> None:
    from fhir.resources.capabilitystatement import CapabilityStatement

    CapabilityStatement.model_validate_json((await client.fhir("GET", "/metadata")).body)


async def test_every_declared_parameter_is_supported(client: SandboxClient) -> None:
    values = dict.fromkeys(("token", "string", "reference", "composite", "special"), "x")
    values |= {"date": "2026-11-20", "uri": "urn:x", "number": "1", "quantity": "1"}
    for type_, resource in (await resources(client)).items():
        query = "&".join(f"{p['name']}={values[p['type']]}" for p in resource["searchParam"])
        answer = await client.fhir("GET", f"/{type_}?{query}")
        assert answer.status == 200, (type_, answer.body)
        assert answer.json["link"][0]["url"] == f"{client.sandbox.fhir_base_url}/{type_}?{query}"


async def test_every_example_has_its_type_declared(client: SandboxClient) -> None:
    declared = await resources(client)
    found = {
        type_
        for type_ in declared
        if (await client.fhir("GET", f"/{type_}?_count=0")).json["total"] > 0
    }
    loaded = [*examples("http://x/fhir"), *terminology()]
    assert found == {resource["resourceType"] for resource in loaded}


def codes(resource: Any) -> set[str]:
    return {interaction["code"] for interaction in resource["interaction"]}


async def test_declared_interactions(client: SandboxClient) -> None:
    declared = await resources(client)
    everything = {"create", "read", "vread", "update", "delete", "history-instance", "search-type"}
    assert codes(declared["Patient"]) == everything
    assert codes(declared["CodeSystem"]) == codes(declared["Consent"]) == everything - {"delete"}
    assert codes(declared["AuditEvent"]) == {"create", "read", "search-type"}
    assert codes(declared["Provenance"]) == {"read", "search-type"}
    statement = (await client.fhir("GET", "/metadata")).json
    assert "interaction" not in statement["rest"][0]


async def test_no_conditional_interaction_is_declared(client: SandboxClient) -> None:
    for resource in (await resources(client)).values():
        flags = ("conditionalCreate", "conditionalUpdate", "conditionalPatch", "updateCreate")
        assert not any(resource[flag] for flag in flags)
        assert {resource["conditionalRead"], resource["conditionalDelete"]} == {"not-supported"}


async def test_declared_operations(client: SandboxClient) -> None:
    declared = {
        type_: {operation["name"] for operation in resource["operation"]}
        for type_, resource in (await resources(client)).items()
        if "operation" in resource
    }
    assert declared == {
        "CodeSystem": {"lookup", "subsumes", "validate-code"},
        "ConceptMap": {"translate"},
        "ValueSet": {"expand", "validate-code"},
    }


async def test_lenient_declares_conditions_bundles_and_validate(lenient: SandboxClient) -> None:
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
