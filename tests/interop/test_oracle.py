"""HAPI's parser as a second opinion: it finds planted faults, and accepts what is equal."""

from __future__ import annotations

import json

import pytest

from tests.interop.oracle import Oracle

PLATFORM = "http://platform.example/fhir"
GATEWAY = "http://gateway.example:8080/fhir"
JSON = "application/fhir+json;charset=utf-8"
XML = "application/fhir+xml"


def page(base: str, value: str = "1.00", text: str = PLATFORM) -> bytes:
    """Return a search's page, whose text and identifier name the platform without being links."""
    div = f'<div xmlns=\\"http://www.w3.org/1999/xhtml\\">{text}</div>'
    extension = f'{{"url": "{PLATFORM}/StructureDefinition/x", "valueString": "{PLATFORM}/x"}}'
    observation = f"""{{"resourceType": "Observation", "id": "1", "status": "final",
        "text": {{"status": "generated", "div": "{div}"}}, "extension": [{extension}],
        "code": {{"coding": [{{"system": "http://loinc.org", "code": "718-7"}}]}},
        "subject": {{"reference": "{base}/Patient/1"}},
        "valueQuantity": {{"value": {value}, "unit": "g/dL"}}}}"""
    return f"""{{"resourceType": "Bundle", "type": "searchset",
        "link": [{{"relation": "next", "url": "{base}?_getpages=1"}}],
        "entry": [{{"fullUrl": "{base}/Observation/1", "resource": {observation}}}]}}""".encode()


def xml(base: str, value: str = "1.00") -> bytes:
    return f"""<Observation xmlns="http://hl7.org/fhir"><status value="final"/>
        <code><text value="x"/></code><subject><reference value="{base}/Patient/1"/></subject>
        <valueQuantity><value value="{value}"/></valueQuantity></Observation>""".encode()


async def test_equal_resources_have_no_difference(hapi_oracle: Oracle) -> None:
    other = json.dumps(json.loads(page(GATEWAY, value='"V"')), sort_keys=True)
    rewritten = other.replace('"V"', "1.00").encode()
    before = hapi_oracle.compared
    assert await hapi_oracle.same(page(PLATFORM), rewritten, JSON, PLATFORM, GATEWAY) is None
    assert await hapi_oracle.same(xml(PLATFORM), xml(GATEWAY), XML, PLATFORM, GATEWAY) is None
    assert hapi_oracle.compared == before + 2


@pytest.mark.parametrize(
    ("planted", "named"),
    [
        pytest.param(page(GATEWAY).replace(b"g/dL", b"mg/dL"), "unit", id="a text changed"),
        pytest.param(page(GATEWAY, value="1.0"), "1.00 → ", id="a digit of a decimal lost"),
        pytest.param(page(GATEWAY, value="1.000"), "1.00 → ", id="a digit of a decimal added"),
        pytest.param(page(PLATFORM), ".link.url", id="no link rewritten"),
        pytest.param(
            page(GATEWAY).replace(f"{GATEWAY}/Patient".encode(), f"{PLATFORM}/Patient".encode()),
            ".subject.reference",
            id="a reference left",
        ),
        pytest.param(page(GATEWAY, text=GATEWAY), "div", id="a narrative rewritten"),
        pytest.param(page(GATEWAY)[:-2], "unreadable", id="cut off"),
    ],
)
async def test_differences_are_found(hapi_oracle: Oracle, planted: bytes, named: str) -> None:
    found = await hapi_oracle.same(page(PLATFORM), planted, JSON, PLATFORM, GATEWAY)
    assert found is not None
    assert named in found
