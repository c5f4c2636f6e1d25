"""The local OperationOutcomes as a FHIR client sees them."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
from fhir.resources.operationoutcome import OperationOutcome
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import REASONS, UPSTREAM_FAILED, UPSTREAM_NON_FHIR, GatewayError, outcome_text
from gateway.fhir.content_negotiation import wants_xml
from gateway.fhir.operation_outcome import error_outcome, write_resource
from gateway.i18n import LANGUAGES, choose_language

REQUEST_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
FHIR = "{http://hl7.org/fhir}"


def rendered(error, *, language="en", xml=False, request_id=REQUEST_ID, attempts=0):
    """Return body and type, with defaults for what most tests do not care about."""
    outcome = error_outcome(error, request_id=request_id, language=language, attempts=attempts)
    return write_resource(outcome, xml=xml)


def parsed(xml):
    return ElementTree.fromstring(xml)  # noqa: S314 - written by the code under test


def as_json(element):
    """Return a FHIR XML element in the shape of FHIR JSON (lists for all that repeats)."""
    value = element.get("value")
    if value is not None:
        return value
    node = {}
    for child in element:
        name = child.tag.removeprefix(FHIR)
        if name in {"issue", "coding"}:
            node.setdefault(name, []).append(as_json(child))
        else:
            assert name not in node
            node[name] = as_json(child)
    return node


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_json_is_valid_r5(reason, language):
    """Every reason in every language, by the R5 models."""
    body, content_type = rendered(GatewayError(reason), language=language)
    assert content_type == b"application/fhir+json; charset=utf-8"
    outcome = OperationOutcome.model_validate_json(body)
    (issue,) = outcome.issue
    assert outcome.id == REQUEST_ID
    assert outcome.language == language
    assert (issue.severity, issue.code) == (reason.severity, reason.issue_code)
    assert issue.details.coding[0].system == "urn:dhp-gateway:error"
    assert issue.details.coding[0].code == reason.code
    assert issue.details.text == outcome_text(reason.code, language)


@pytest.mark.parametrize("reason", REASONS.values(), ids=REASONS)
def test_xml_has_the_elements_of_the_json(reason):
    error = GatewayError(reason, hint='a <b> & "c" d\'e')
    body, content_type = rendered(error, language="uz", xml=True)
    assert content_type == b"application/fhir+xml; charset=utf-8"
    root = parsed(body)
    assert root.tag == f"{FHIR}OperationOutcome"
    expected = json.loads(rendered(error, language="uz")[0])
    assert {"resourceType": "OperationOutcome", **as_json(root)} == expected


def test_xml_elements_stand_in_the_order_of_the_schema():
    """FHIR's XML schema is a sequence."""
    root = parsed(rendered(GatewayError(UPSTREAM_FAILED), xml=True)[0])
    names = [element.tag.removeprefix(FHIR) for element in root.iter()]
    assert names == [
        "OperationOutcome",
        "id",
        "language",
        "issue",
        "severity",
        "code",
        "details",
        "coding",
        "system",
        "code",
        "text",
        "diagnostics",
    ]


def test_diagnostics_have_request_id_attempts_status_and_hint():
    error = GatewayError(
        UPSTREAM_NON_FHIR, detail="for the log", hint="an empty body", upstream_status=504
    )
    issue = json.loads(rendered(error, attempts=3)[0])["issue"][0]
    assert issue["diagnostics"] == (
        f"request-id={REQUEST_ID}; attempts=3; platform-status=504; an empty body"
    )
    assert issue["code"] == "timeout"


def test_the_detail_for_the_log_is_not_in_the_outcome():
    assert b"SECRET" not in rendered(GatewayError(UPSTREAM_FAILED, detail="SECRET"))[0]


@pytest.mark.parametrize("request_id", ["abc-123", "a_b:c.d", "x" * 128])
@pytest.mark.parametrize("xml", [False, True])
def test_the_id_is_the_request_id(request_id, xml):
    """Also one that is no FHIR id."""
    body, _ = rendered(GatewayError(UPSTREAM_FAILED), request_id=request_id, xml=xml)
    outcome = as_json(parsed(body)) if xml else json.loads(body)
    assert outcome["id"] == request_id
    assert f"request-id={request_id};" in outcome["issue"][0]["diagnostics"]


def test_an_unknown_language_gives_english():
    outcome = json.loads(rendered(GatewayError(UPSTREAM_FAILED), language="de")[0])
    assert outcome["language"] == "en"


@given(st.text(st.characters(exclude_categories=())), st.booleans())
def test_any_hint_gives_a_valid_body(hint, xml):
    """Control characters and broken Unicode too."""
    body, _ = rendered(GatewayError(UPSTREAM_FAILED, hint=hint), xml=xml)
    outcome = as_json(parsed(body)) if xml else json.loads(body)
    assert outcome["issue"][0]["diagnostics"].startswith("request-id=")


FORMS = [
    ("", None, False),
    ("", "", False),
    ("", "*/*", False),
    ("", "application/fhir+json", False),
    ("", "application/fhir+xml", True),
    ("", "application/xml", True),
    ("", "text/xml", True),
    ("", "application/xml+fhir", True),
    ("", "Application/FHIR+XML; charset=utf-8; fhirVersion=5.0", True),
    ("", "application/fhir+xml, */*", True),
    ("", "application/fhir+xml;q=0.5, */*;q=0.8", False),
    ("", "application/fhir+xml, application/fhir+json", False),
    ("", "application/fhir+xml;q=0.9, application/fhir+json;q=0.8", True),
    ("", "application/fhir+xml;q=0.8, application/fhir+json;q=0.9", False),
    ("", "application/fhir+json;q=0.1, application/fhir+xml;q=0.5, */*", True),
    ("", "application/fhir+json;q=0, application/fhir+xml;q=0.1", True),
    ("", "application/fhir+xml;q=0", False),
    ("", "application/fhir+xml;q=nan", False),
    ("", "text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", False),
    ("", "application/xml, application/xhtml+xml, text/html;q=0.9, */*;q=0.5", True),
    ("", "text/plain;q=0.5, application/fhir+xml;q=0.4", False),
    ("", ",;=;q=,;;q=1", False),
    ("_format=xml", None, True),
    ("_format=xml", "application/fhir+json", True),
    ("_format=text/xml", None, True),
    ("_format=application%2Fxml", None, True),
    ("_format=application/fhir%2Bxml", None, True),
    ("_format=application/fhir+xml", None, True),
    ("_format=application/fhir%2Bxml;fhirVersion=5.0", None, True),
    ("a=1&_format=XML&b=2", None, True),
    ("_format=json", "application/fhir+xml", False),
    ("_format=application/fhir+json", "application/fhir+xml", False),
    ("_format=html", "application/fhir+xml", True),
    ("_format=", "application/fhir+xml", True),
    ("name=_format=xml", None, False),
    ("_format:exact=xml", None, False),
    ("_format=%ff%", None, False),
]


@pytest.mark.parametrize(("query", "accept", "expected"), FORMS)
def test_negotiates_the_format(query, accept, expected):
    """`_format` outranks the weights of `Accept`; JSON is the default."""
    assert wants_xml(query, accept) is expected


CHOICES = [
    (None, "ru", "ru"),
    ("", "uz", "uz"),
    ("en", "ru", "en"),
    ("ru-RU, ru;q=0.9, en;q=0.8", "en", "ru"),
    ("uz-Latn-UZ", "en", "uz"),
    ("uz_UZ", "en", "uz"),
    ("UZ", "en", "uz"),
    ("en;q=0.5, uz;q=0.7, ru;q=0.6", "en", "uz"),
    ("ru, en", "uz", "ru"),
    ("de, fr;q=0.9", "uz", "uz"),
    ("de, en;q=0.1", "uz", "en"),
    ("*", "ru", "ru"),
    ("*, en;q=0.5", "ru", "ru"),
    ("*;q=0.1, en", "ru", "en"),
    ("ru;q=0, en;q=0.2", "ru", "en"),
    ("ru;q=0", "ru", "ru"),
    ("kaa", "en", "uz"),
    ("kaa-UZ, ru;q=0.4", "en", "ru"),
    ("ru;q=2, en;q=x", "uz", "uz"),
    (";;,=,q=1", "en", "en"),
]


@pytest.mark.parametrize(("accept_language", "default", "expected"), CHOICES)
def test_negotiates_the_language(accept_language, default, expected):
    """By weight; Uzbek for Karakalpak readers; else the default."""
    assert choose_language(accept_language, default) == expected


@given(st.text(), st.text())
def test_negotiation_never_raises(query, header):
    assert wants_xml(query + "&_format=" + query, header) in {True, False}
    assert choose_language(header, "uz") in LANGUAGES
