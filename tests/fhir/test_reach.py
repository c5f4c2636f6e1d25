"""Which types the parameters of a search reach, as the most lenient server reads them."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.fhir.search_parameters import is_limited_to_types, overrides_request

ONE = frozenset({"Observation"})
TWO = frozenset({"Observation", "Patient"})

ORDINARY = [
    "",
    "code=1234-5",
    "code=http://loinc.org|1234-5,1234-6&date=ge2020&date=le2021",
    "code:not=1&code:text=x&value-quantity:missing=true&code:of-type=a|b|c",
    "subject=Patient/1&patient=1&subject:Patient=1&subject:identifier=urn:x|1",
    "component-code-value-quantity=http://loinc.org|1$gt5",
    "_id=1,2&_lastUpdated=gt2020&_tag=x&_profile:below=http://x&_security:not=R",
    "_count=5&_page=2&_total=accurate&_elements=code,subject&_summary=count",
    "_format=application/fhir+json;charset=utf-8&_pretty=true",
    "_sort=-date,code&_sort=_lastUpdated&_sort:desc=date",
    "%5Fid=1&date=2020%2D01&name=%D0%98+%D0%98;&&",
    "_has:Observation:derived-from:code=1",
    "_include=Observation:derived-from:Observation&_revinclude:iterate=Observation:has-member",
    "derived-from:Observation.code=1&_sort=derived-from:Observation.date",
]
OF_PATIENTS = [
    "patient.name=x",
    "subject:Patient.name=x",
    "subject:Patient.identifier:of-type=a|b|c",
    "subject:Patient.link:Patient._id=1",
    "derived-from:Observation.subject:Patient.birthdate=1980",
    "subject:Patient._has:Observation:subject:code=1",
    "_has:Patient:link:name=x",
    "_HAS:Patient:link:name=x",
    "%5fhas%3APatient%3Alink%3Aname=x",
    "_has:Observation:subject:subject:Patient.name=x",
    "_has:Observation:derived-from:_has:Patient:link:name=x",
    "_include=Observation:subject:Patient",
    "_INCLUDE=Observation:subject:Patient",
    "_include%3Aiterate=Observation%3Asubject%3APatient",
    "code=1;_include=Observation:subject:Patient",
    "_revinclude=Patient:general-practitioner",
    "_sort=subject:Patient.name",
    "_sort=date,-patient.name",
]
NOBODYS = [
    "subject.name=x",
    "subject._has:Observation:subject:code=1",
    "performer:Practitioner.name=x",
    "subject:Patient.general-practitioner.name=x",
    "subject:Patient.=x",
    "subject:patient.name=x",
    "subject:Patient:Patient.name=x",
    "subject:Unheard=1",
    "subject:Observation.subject:Group.member=x",
    "_has:Practitioner:x:name=1",
    "_has:Observation=1",
    "_has:Observation:patient=1",
    "_has:Observation:patient:_include=1",
    "_include=*",
    "_include:iterate=*",
    "_include=Observation:*",
    "_include=Observation:subject",
    "_include=Observation:subject:*",
    "_include=Observation:subject:Patient,Observation:performer",
    "_include:x=Observation:subject:Patient",
    "_include=",
    "_include",
    "_revinclude=*",
    "_revinclude=Provenance:target",
    "_revinclude=Observation:subject:Group",
    "_include[]=Observation:subject:Patient",
    " _include=Observation:subject:Patient",
    "+_include=Observation:subject:Patient",
    "%00_include=Observation:subject:Patient",
    "%255finclude=Observation:subject:Patient",
    "x%26_include=Observation:subject:Patient",
    "x%3B_include=Observation:subject:Patient",
    "_sort=subject.name",
    "_sort=_has:Practitioner:x:name",
    "_sort=_include",
    "_sort=",
    "_sort:x=date",
    *(f"{name}=x" for name in ("_filter", "_query", "_graph", "_list", "_type", "_contained")),
    *(f"{name}=x" for name in ("_containedType", "_getpages", "_method", "_in", "_charset_")),
    *("_ID:x=1", "_unheard=1", "_=1", "=1", "$x=1", "a.b", "code", "code=1&x", "?code=1"),
    "code:mdm=1",
    "\u0441ode=1",
    "a" * 300 + "=1",
    "&".join(["code=1"] * 1001),
    "_sort=" + "a," * 2000 + "a",
]


@pytest.mark.parametrize("parameters", ORDINARY)
def test_parameters_of_its_own_type_reach_no_other(parameters: str) -> None:
    assert is_limited_to_types(parameters, ONE)


@pytest.mark.parametrize("parameters", OF_PATIENTS)
def test_chains_and_inclusions_reach_every_type_on_their_way(parameters: str) -> None:
    """Reverse chains and sorting too."""
    assert is_limited_to_types(parameters, TWO)
    assert not is_limited_to_types(parameters, ONE)
    assert not is_limited_to_types(f"code=1&{parameters}&date=2020", ONE)


@pytest.mark.parametrize("parameters", NOBODYS)
def test_unnamed_types_and_unusual_names_reach_unknown_types(parameters: str) -> None:
    """They belong to no permission."""
    assert not is_limited_to_types(parameters, TWO)
    assert not is_limited_to_types(f"code=1;{parameters}", TWO)


@given(
    name=st.sampled_from([case.partition("=")[0] for case in OF_PATIENTS if ";" not in case]),
    escaped=st.sets(st.integers(0, 60)),
    raised=st.sets(st.integers(0, 60)),
    separator=st.sampled_from("&;"),
)
def test_escapes_case_and_separators_hide_no_type(
    name: str, escaped: set[int], raised: set[int], separator: str
) -> None:
    folded = "".join(c.upper() if at in raised else c for at, c in enumerate(name))
    written = "".join(f"%{ord(c):02X}" if at in escaped else c for at, c in enumerate(folded))
    assert not is_limited_to_types(f"code=1{separator}{written}=Observation:subject:Patient.x", ONE)


@given(st.text(alphabet="_:.;&=%+AaZ$* -[]20Patient,Obs", max_size=60))
def test_never_raises(parameters: str) -> None:
    """Whatever is sent gets a judgement."""
    assert is_limited_to_types(parameters, TWO) in (True, False)
    assert overrides_request(quote(parameters)) in (True, False)


@pytest.mark.parametrize(
    "parameters",
    ["_method=DELETE", "a=1;_METHOD=PUT", "%5Fquery=x", "+_query=x", "_query:x=1", "_graph=1"],
)
def test_names_that_change_the_request_are_found_in_every_spelling(parameters: str) -> None:
    assert overrides_request(parameters)
    assert not overrides_request("code=_query&method=1&_id=2")
