"""URLs in JSON bodies: which are rewritten, which never, and that no other octet changes."""

from __future__ import annotations

import json
import re
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.fhir.links.json_links import JsonRewriter
from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import rewriter_for
from tests.fhir.bodies import spelled_out

PLATFORM = "https://playground.dhp.uz/fhir"
GATEWAY = "http://127.0.0.1:8080/fhir"
LINKS = LinkMap(PLATFORM, GATEWAY)


def run(body, *, size=None, kind="application/fhir+json", direction="to-gateway"):
    """Return the rewritten body, fed in chunks of `size` octets, and the two counts."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    rewriter = rewriter_for(kind, LINKS, direction)
    step = size or len(raw) or 1
    pieces = [rewriter.feed(raw[at : at + step]) for at in range(0, len(raw), step)]
    return b"".join([*pieces, rewriter.finish()]), rewriter.rewritten, rewriter.unrewritten


def to_gateway(body, **how):
    return json.loads(run(body, **how)[0])


def swapped(body):
    """Return the body with every platform URL replaced, as text."""
    return json.loads(json.dumps(body).replace(PLATFORM, GATEWAY))


def reference(target="Patient/1"):
    return {"reference": f"{PLATFORM}/{target}"}


LISTED = {
    "searchset": {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "next", "url": f"{PLATFORM}?_page=2"}],
        "entry": [
            {
                "fullUrl": f"{PLATFORM}/Patient/1",
                "link": [{"relation": "self", "url": f"{PLATFORM}/Patient/1"}],
                "resource": {"resourceType": "Patient", "managingOrganization": reference("Org/1")},
            }
        ],
    },
    "history": {
        "resourceType": "Bundle",
        "type": "history",
        "entry": [
            {
                "request": {"method": "GET", "url": f"{PLATFORM}/Patient/1"},
                "response": {
                    "status": "201",
                    "location": f"{PLATFORM}/Patient/1/_history/1",
                    "outcome": {"resourceType": "Basic", "subject": reference()},
                },
            }
        ],
        "issues": {"resourceType": "Basic", "subject": reference()},
    },
    "references": {
        "resourceType": "Encounter",
        "contained": [{"resourceType": "Basic", "subject": reference()}],
        "extension": [{"url": "urn:x", "valueReference": reference()}],
        "subject": reference("Patient/1/_history/2"),
        "diagnosis": [{"condition": [{"reference": reference("Condition/1#part")}]}],
    },
    "risk": {"resourceType": "RiskAssessment", "condition": reference("Condition/1")},
    "attachments": {
        "resourceType": "Patient",
        "photo": [{"url": f"{PLATFORM}/Binary/1"}],
        "extension": [{"url": "urn:x", "valueAttachment": {"url": f"{PLATFORM}/Binary/2"}}],
    },
    "document reference": {
        "resourceType": "DocumentReference",
        "content": [{"attachment": {"url": f"{PLATFORM}/Binary/1"}}],
    },
    "capabilities": {"resourceType": "CapabilityStatement", "implementation": {"url": PLATFORM}},
    "terminology": {"resourceType": "TerminologyCapabilities", "implementation": {"url": PLATFORM}},
    "expansion": {
        "resourceType": "ValueSet",
        "expansion": {"next": f"{PLATFORM}/ValueSet/1/$expand"},
    },
    "parameters": {
        "resourceType": "Parameters",
        "parameter": [
            {"name": "a", "valueUri": f"{PLATFORM}/Patient/1"},
            {"name": "b", "part": [{"name": "c", "valueUrl": f"{PLATFORM}/Patient/1"}]},
            {"name": "d", "resource": {"resourceType": "Basic", "subject": reference()}},
        ],
    },
    "manifest": {
        "transactionTime": "2026-11-20T09:30:00Z",
        "request": f"{PLATFORM}/$export",
        "output": [{"type": "Patient", "url": f"{PLATFORM}/_bulk/1"}],
        "error": [{"type": "OperationOutcome", "url": f"{PLATFORM}/_bulk/2"}],
        "deleted": [{"type": "Bundle", "url": f"{PLATFORM}/_bulk/3"}],
    },
}


@pytest.mark.parametrize("body", LISTED.values(), ids=LISTED.keys())
def test_urls_in_listed_elements_are_rewritten(body):
    """Every absolute platform URL in these bodies is in a listed element."""
    text, rewritten, unrewritten = run(body)
    assert json.loads(text) == swapped(body)
    assert (rewritten, unrewritten) == (json.dumps(body).count(PLATFORM), 0)


@pytest.mark.parametrize("body", LISTED.values(), ids=LISTED.keys())
def test_the_order_of_members_does_not_matter(body):
    """With `resourceType` and `type` last, edits are pending until then."""

    def turned(value):
        if isinstance(value, dict):
            return {key: turned(value[key]) for key in reversed(value)}
        return [turned(item) for item in value] if isinstance(value, list) else value

    assert to_gateway(turned(body)) == swapped(body)


def signed(**members):
    entry = {"fullUrl": f"{PLATFORM}/Patient/1", "resource": {"resourceType": "Basic"}}
    return {"resourceType": "Bundle", "type": "collection", "entry": [entry], **members}


def document(**members):
    resource = {"resourceType": "Composition", "subject": reference()}
    entry = {"fullUrl": f"{PLATFORM}/Composition/1", "resource": resource}
    return {"resourceType": "Bundle", "type": "document", "entry": [entry], **members}


NEVER = {
    "document": document(),
    "document, type last": {
        "entry": document()["entry"],
        "type": "document",
        "resourceType": "Bundle",
    },
    "signed bundle": signed(signature={"who": reference(), "data": "c2ln"}),
    "signed search result": {
        "resourceType": "Bundle",
        "signature": {"data": "c2ln"},
        "type": "searchset",
        "link": [{"relation": "self", "url": PLATFORM}],
    },
    "signed search result, type first": {
        "resourceType": "Bundle",
        "type": "searchset",
        "signature": {"data": "c2ln"},
        "link": [{"relation": "self", "url": PLATFORM}],
    },
    "signed provenance": {
        "resourceType": "Provenance",
        "target": [reference()],
        "agent": [{"who": reference()}],
        "signature": [{"who": reference()}],
    },
    "signature elsewhere": {
        "resourceType": "Contract",
        "signer": [{"signature": [{"who": reference()}]}],
        "extension": [{"url": "urn:x", "valueSignature": {"who": reference()}}],
    },
    "canonicals": {
        "resourceType": "StructureDefinition",
        "meta": {"profile": [f"{PLATFORM}/a"], "source": f"{PLATFORM}/Device/1#x"},
        "url": f"{PLATFORM}/StructureDefinition/1",
        "instantiatesCanonical": [f"{PLATFORM}/a"],
        "instantiatesUri": [f"{PLATFORM}/a"],
        "extension": [{"url": f"{PLATFORM}/b", "valueUri": f"{PLATFORM}/Patient/1"}],
    },
    "identities": {
        "resourceType": "Patient",
        "identifier": [{"system": f"{PLATFORM}/sid", "value": PLATFORM}],
        "maritalStatus": {"coding": [{"system": f"{PLATFORM}/cs"}]},
        "managingOrganization": {"identifier": {"value": f"{PLATFORM}/Organization/1"}},
    },
    "real addresses": {
        "resourceType": "Subscription",
        "endpoint": f"{PLATFORM}/hook",
        "contained": [{"resourceType": "Endpoint", "address": f"{PLATFORM}/x"}],
    },
    "audit": {
        "resourceType": "AuditEvent",
        "agent": [{"networkUri": PLATFORM, "policy": [f"{PLATFORM}/p"]}],
    },
    "text": {
        "resourceType": "Patient",
        "text": {"status": "generated", "div": f"<div><a href='{PLATFORM}/Patient/1'>x</a></div>"},
        "note": [{"text": f"{PLATFORM}/Patient/1"}],
        "link": [{"other": {"display": f"{PLATFORM}/Patient/1"}}],
    },
    "outcome": {
        "resourceType": "OperationOutcome",
        "issue": [{"diagnostics": f"{PLATFORM}/Patient/1", "location": [f"{PLATFORM}/Patient/1"]}],
        "extension": [{"url": "urn:x", "valueReference": reference()}],
    },
    "expressions": {
        "resourceType": "PlanDefinition",
        "action": [{"condition": [{"expression": reference("Library/1")}]}],
        "extension": [{"url": "urn:x", "valueExpression": reference("Library/1")}],
    },
    "own references": {"resourceType": "DetectedIssue", "reference": f"{PLATFORM}/Library/1"},
    "policy": {"resourceType": "Consent", "policyBasis": {"url": f"{PLATFORM}/Library/1"}},
    "no reference": {"resourceType": "Basic", "subject": {"reference": PLATFORM}},
    "full URL of no bundle": {"resourceType": "Basic", "fullUrl": f"{PLATFORM}/Basic/1"},
    "quotes in a value": {
        "resourceType": "PlanDefinition",
        "criteria": {"subj": ":{", "b": '"', "reference": f"{PLATFORM}/Library/1"},
    },
    "link of no bundle": {"resourceType": "TestScript", "metadata": {"link": [{"url": PLATFORM}]}},
    "text in parameters": {
        "resourceType": "Parameters",
        "parameter": [{"name": "a", "valueString": f"{PLATFORM}/Patient/1"}],
    },
    "array": [f"{PLATFORM}/Patient/1", {"reference": [f"{PLATFORM}/Patient/1"]}],
    "sibling hosts": {
        "resourceType": "Basic",
        "subject": {"reference": "https://dhp.uz/fhir/Patient/1"},
        "author": {"reference": f"{PLATFORM}X/Patient/1"},
    },
}


@pytest.mark.parametrize("body", NEVER.values(), ids=NEVER.keys())
def test_signed_bodies_and_other_text_are_unchanged(body):
    """Platform URLs in them are counted."""
    text, rewritten, unrewritten = run(body)
    assert text == json.dumps(body).encode()
    assert rewritten == 0
    assert bool(unrewritten) == (f'{PLATFORM}"' in str(text) or f"{PLATFORM}/" in str(text))


@pytest.mark.parametrize("size", [None, 50])
@pytest.mark.parametrize("name", [*NEVER, *LISTED])
def test_names_and_types_count_in_every_spelling(name, size):
    """With any escapes."""
    body = json.dumps({**NEVER, **LISTED}[name])
    spelled = spelled_out(body.encode(), *re.findall('"([A-Za-z]+)"', body))
    assert to_gateway(spelled, size=size) == to_gateway(json.loads(body))
    assert run(spelled, size=size)[1:] == run(json.loads(body))[1:]


@pytest.mark.parametrize("kind", ["collection", "message"])
def test_a_bundle_that_turns_out_unsigned_is_rewritten(kind):
    assert to_gateway(signed(type=kind)) == swapped(signed(type=kind))


def test_a_document_in_a_searchset_is_unchanged_and_the_rest_rewritten():
    entries = [
        {"fullUrl": f"{PLATFORM}/Bundle/1", "resource": document(id="x")},
        {"fullUrl": f"{PLATFORM}/Patient/1", "resource": {"resourceType": "Basic"}},
    ]
    body = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    result = to_gateway(body)
    assert result["entry"][0]["resource"] == document(id="x")
    assert [entry["fullUrl"] for entry in result["entry"]] == [
        f"{GATEWAY}/Bundle/1",
        f"{GATEWAY}/Patient/1",
    ]


KEPT_TYPES = {
    "signed Provenance": NEVER["signed provenance"],
    "outcome": NEVER["outcome"],
    "document": document(),
}


@pytest.mark.parametrize("size", [None, 50, 3000])
@pytest.mark.parametrize("name", KEPT_TYPES)
@pytest.mark.parametrize("padding", [0, 200])
def test_a_type_written_with_escapes_is_a_type(name, size, padding):
    """Also of one resource among others in a streamed body."""
    other = {"fullUrl": f"{PLATFORM}/Basic/1", "resource": {"resourceType": "Basic"}}
    pad = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Basic", "id": "x" * 900}}
    entries = [other, *[pad] * padding, {"resource": KEPT_TYPES[name]}, other]
    body = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    text = json.dumps(body).replace('"resourceType"', '"\\u0072esourceType"')
    result = json.loads(run(text.encode(), size=size)[0])
    expected = swapped(body)
    expected["entry"][1 + padding] = entries[1 + padding]
    assert result == expected


def long_bundle(length, **members):
    """Return a Bundle of at least that length, with entries first and its type last."""
    entry = {"fullUrl": f"{PLATFORM}/Basic/1", "resource": {"resourceType": "Basic"}}
    entries = [entry] * (length // len(json.dumps(entry)))
    return {"entry": entries, **members, "resourceType": "Bundle"}


def long_parameters(length):
    """Return Parameters of at least that length, with their type last."""
    parameter = {"resource": {"resourceType": "Basic", "subject": reference()}, "name": "a"}
    parameters = [parameter] * (length // len(json.dumps(parameter)))
    return {"parameter": parameters, "resourceType": "Parameters"}


def long_provenance(length, **members):
    """Return a Provenance of at least that length, with its type last."""
    targets = [reference()] * (length // len(json.dumps(reference())))
    return {"target": targets, **members, "resourceType": "Provenance"}


DECIDED_LAST = {
    "signed collection": lambda n: long_bundle(n, type="collection", signature={"data": "c2ln"}),
    "document": lambda n: long_bundle(n, type="document"),
    "collection": lambda n: long_bundle(n, type="collection"),
    "signed Provenance": lambda n: long_provenance(n, signature=[{"data": "c2ln"}]),
    "Provenance": long_provenance,
    "outcome": lambda n: {**long_provenance(n), "resourceType": "OperationOutcome"},
    "parameters": long_parameters,
}


@pytest.mark.parametrize("size", [None, 1000, 65_536])
@pytest.mark.parametrize("length", [1000, 70_000, 150_000])
@pytest.mark.parametrize("name", DECIDED_LAST)
def test_the_end_of_a_long_resource_in_a_searchset_decides(name, length, size):
    """The resources around it are rewritten."""
    plain = {"fullUrl": f"{PLATFORM}/Basic/1", "resource": {"resourceType": "Basic"}}
    decided = DECIDED_LAST[name](length)
    stays = name.startswith(("signed", "document", "outcome"))
    after = [plain] * 500 if size else []
    entries = [*[plain] * 2000, {"resource": decided, "fullUrl": f"{PLATFORM}/X/1"}, *after]
    body = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    expected = swapped(body)
    if stays:
        expected["entry"][2000]["resource"] = decided
    text, rewritten, unrewritten = run(body, size=size)
    assert json.loads(text) == expected
    kept = json.dumps(decided).count(f"{PLATFORM}/") if stays else 0
    assert (rewritten, unrewritten) == (json.dumps(body).count(f"{PLATFORM}/") - kept, kept)


DECIDED_BY_ITS_END = {
    "collection": True,
    "searchset": True,
    "message": True,
    "document": False,
    "signed collection": False,
    "signed searchset": False,
}


@pytest.mark.parametrize("size", [None, 1000, 65_536])
@pytest.mark.parametrize("length", [1000, 100_000, 600_000])
@pytest.mark.parametrize("name", DECIDED_BY_ITS_END)
def test_entries_before_the_type_of_their_bundle_are_decided_by_it(name, length, size):
    """All that is known at their end is that they are entries; URLs that are no links stay."""
    identifier = [{"system": f"{PLATFORM}/sid", "value": "1"}]
    resource = {"resourceType": "Basic", "subject": reference(), "identifier": identifier}
    entry = {"fullUrl": f"{PLATFORM}/Basic/1", "resource": resource}
    signature = {"signature": {"data": "c2ln"}} if name.startswith("signed") else {}
    entries = [entry] * (length // len(json.dumps(entry)))
    members = {"entry": entries, **signature, "type": name.split()[-1], "resourceType": "Bundle"}
    text = json.dumps(members).encode()
    stays = json.dumps(identifier).encode()
    changed = text.replace(PLATFORM.encode(), GATEWAY.encode())
    changed = changed.replace(stays.replace(PLATFORM.encode(), GATEWAY.encode()), stays)
    number = len(entries)
    expected = (changed, 2 * number, number) if DECIDED_BY_ITS_END[name] else (text, 0, 3 * number)
    assert run(text, size=size) == expected


FIRST_MEMBERS = ["fullUrl", "resource", "search", "request"]


@pytest.mark.parametrize("first", FIRST_MEMBERS)
@pytest.mark.parametrize("blanks", [None, 1])
def test_streamed_entries_are_rewritten_in_any_order_of_members(first, blanks):
    entry = {
        "fullUrl": f"{PLATFORM}/Basic/1",
        "resource": {"resourceType": "Basic", "subject": reference()},
        "search": {"mode": "match"},
        "request": {"method": "GET", "url": f"{PLATFORM}/Basic/1"},
    }
    entries = [{first: entry[first], **entry}] * 1000
    body = {"resourceType": "Bundle", "type": "history", "entry": entries}
    text = json.dumps(body, indent=blanks).encode()
    expected = text.replace(PLATFORM.encode(), GATEWAY.encode())
    for size in (None, 10_000):
        assert run(text, size=size) == (expected, 3000, 0)


@pytest.mark.parametrize("size", [777, 1448, 30_000, 65_536])
def test_entries_without_a_link_are_sent_once(size):
    """Before their end is known."""
    plain = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Basic", "id": "x" * 3000}}
    entries = [*[plain] * 100, {"fullUrl": f"{PLATFORM}/Basic/1"}, *[plain] * 100]
    body = {"resourceType": "Bundle", "type": "searchset", "entry": entries}
    text = json.dumps(body).encode()
    assert run(text, size=size) == (text.replace(PLATFORM.encode(), GATEWAY.encode()), 1, 0)


@pytest.mark.parametrize("name", ['a"criteria', '"criteria', 'criteria"', 'a\\"criteria', "a\\"])
def test_an_escaped_quote_does_not_end_a_name(name):
    """At any distance from the inspected text."""
    for distance in range(60, 110):
        before = {"id": "x" * distance, name: reference(), "subject": reference()}
        body = {"resourceType": "Bundle", "entry": [{"resource": before}]}
        text = json.dumps(body, separators=(",", ":")).encode()
        assert run(text) == (text.replace(PLATFORM.encode(), GATEWAY.encode()), 2, 0)
    for distance in range(40, 80):
        inner = {"reference": f"{PLATFORM}/Patient/1", "display": "x" * distance}
        body = {"resourceType": "Basic", "a": {name: dict(reversed(inner.items()))}}
        text = json.dumps(body, separators=(",", ":")).encode()
        assert run(text) == (text.replace(PLATFORM.encode(), GATEWAY.encode()), 1, 0)


NAMES = ["a", "subject", "criteria", "valueExpression", "xcriteria", "managingOrganization"]


@pytest.mark.parametrize("first", NAMES)
@pytest.mark.parametrize("second", NAMES)
def test_elements_with_similar_names_are_distinguished(first, second):
    body = {"resourceType": "Basic", "x": [{first: reference(), second: reference()}] * 2}
    expected = swapped(body)
    for element, kept in zip(expected["x"], body["x"], strict=True):
        element |= {name: kept[name] for name in ("criteria", "valueExpression") if name in kept}
    assert to_gateway(body) == expected


def test_an_escaped_quote_does_not_end_the_name_of_a_url():
    body = '{"resourceType":"Bundle","entry":[{"a\\"fullUrl":%s"%s/Basic/1"}]}'
    for distance in range(60, 100):
        text = (body % (" " * distance, PLATFORM)).encode()
        assert run(text) == (text, 0, 1)


def test_a_gateway_under_the_platforms_base_is_inserted_once():
    """A replaced URL is not replaced again."""
    links = LinkMap("https://example.uz/fhir", "https://example.uz/fhir/gateway")
    body = json.dumps(LISTED["searchset"]).replace(PLATFORM, "https://example.uz/fhir")
    rewriter = rewriter_for("application/fhir+json", links, "to-gateway")
    text = (rewriter.feed(body.encode()) + rewriter.finish()).decode()
    assert text == body.replace("uz/fhir", "uz/fhir/gateway")


def test_a_url_as_the_name_of_a_member_is_unchanged():
    text = json.dumps({"resourceType": "Basic", f"{PLATFORM}/a": 1}).encode()
    assert run(text) == (text, 0, 0)


def test_a_link_element_outside_a_bundle_is_unchanged():
    """An entry's link has a relation."""
    script = {"resourceType": "TestScript", "metadata": {"link": [{"url": f"{PLATFORM}/a"}]}}
    text = json.dumps({"resourceType": "Bundle", "entry": [{"resource": script}]}).encode()
    assert run(text) == (text, 0, 1)


def test_a_signature_after_streamed_entries_has_no_effect():
    """They were sent already."""
    entry = {"fullUrl": f"{PLATFORM}/Patient/1", "resource": {"resourceType": "Basic"}}
    last = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Basic"}}
    body = {"resourceType": "Bundle", "type": "searchset", "entry": [*[entry] * 3000, last]}
    body |= {"signature": {"data": "c2ln"}, "link": [{"relation": "self", "url": PLATFORM}]}
    for size in (None, 1000):
        assert run(body, size=size)[1:] == (3001, 0)


def test_a_searchset_in_a_document_is_unchanged():
    entry = {"fullUrl": f"{PLATFORM}/Patient/1", "resource": {"resourceType": "Basic"}}
    page = {"resourceType": "Bundle", "type": "searchset", "entry": [entry] * 4000}
    head = {"resourceType": "Bundle", "type": "document"}
    text = json.dumps({**head, "entry": [{"resource": page}, entry]}).encode()
    for size in (None, 50_000):
        assert run(text, size=size) == (text, 0, 4001)


def test_an_unsigned_provenance_is_rewritten():
    body = {"resourceType": "Provenance", "target": [reference()], "recorded": "2026-11-20"}
    assert to_gateway(body) == swapped(body)


def test_the_wait_for_a_signature_has_a_limit():
    """A collection with links pending for longer is unchanged."""
    body = json.dumps(signed(note=["x"] * 600, after=[reference()])).encode()
    rewriter = JsonRewriter(LINKS.responses, hold_limit=2000)
    sent = rewriter.feed(body[:2900])
    assert sent == body[: len(sent)]
    assert len(sent) > 2000
    assert sent + rewriter.feed(body[2900:]) + rewriter.finish() == body
    assert rewriter.rewritten == 0


def test_a_long_searchset_is_streamed():
    """Its type is known before its entries."""
    page = LISTED["searchset"]
    head = json.dumps({**page, "entry": page["entry"] * 600})[:-3].encode()
    rewriter = JsonRewriter(LINKS.responses)
    rewriter.feed(head)
    assert len(rewriter.finish()) < 300


TRANSIENT = ["searchset", "history", "subscription-notification", "transaction", "batch"]
TRANSIENT += ["transaction-response", "batch-response"]


@pytest.mark.parametrize("kind", TRANSIENT)
@pytest.mark.parametrize("place", ["first", "between", "last"])
def test_a_buffered_signed_bundle_is_unchanged(kind, place):
    """Of any type, wherever its signature is."""
    entry = [{"fullUrl": f"{PLATFORM}/Patient/1", "resource": {"resourceType": "Basic"}}]
    signature = {"signature": {"who": reference()}}
    bundle = {"type": kind, "link": [{"relation": "self", "url": PLATFORM}], "entry": entry}
    members = [*bundle.items()]
    at = {"first": 0, "between": 2, "last": 3}[place]
    body = dict([("resourceType", "Bundle"), *members[:at], *signature.items(), *members[at:]])
    for size in (None, 1, 50):
        text, rewritten, unrewritten = run(body, size=size)
        assert (text, rewritten, unrewritten) == (json.dumps(body).encode(), 0, 3)


@pytest.mark.parametrize("place", [0, 1])
def test_a_streamed_signed_bundle_is_rewritten_entirely_or_not_at_all(place):
    """A signature counts only before the first link that was sent."""
    entry = {"fullUrl": f"{PLATFORM}/Patient/1", "resource": {"resourceType": "Basic"}}
    members = [("entry", [entry] * 3000), ("link", [{"relation": "self", "url": PLATFORM}])]
    members.insert(place, ("signature", {"data": "c2ln"}))
    body = {"resourceType": "Bundle", "type": "searchset", **dict(members)}
    for size in (None, 1000):
        assert run(body, size=size)[1:] == ((3001, 0) if place else (0, 3001))


@pytest.mark.parametrize("name", ["tmp_1", "a" * 65, "urn%3Auuid", "Ä"])
def test_references_accept_what_full_urls_accept(name):
    """A transaction refers to its entries by the same strings, whatever their ids."""
    entry = {"fullUrl": f"{PLATFORM}/Patient/{name}", "resource": {"resourceType": "Basic"}}
    entry["resource"]["subject"] = reference(f"Patient/{name}")
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [entry]}
    assert to_gateway(body) == swapped(body)
    assert to_platform(swapped(body)) == body


def test_a_string_in_parameters_of_a_response_is_unchanged():
    """In a request it may be the reference of a FHIRPath Patch."""
    part = [{"name": "value", "valueString": f"{PLATFORM}/Patient/1"}]
    body = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}]}
    assert run(body) == (json.dumps(body).encode(), 0, 1)


def test_numbers_spacing_order_and_duplicates_are_unchanged():
    body = (
        b'\xef\xbb\xbf{ "b" : 1.10,\t"a":[1e20 , 0.00,-0 ,\r\n null],"a" : {"x":true}, "subject" :'
        b' {"reference"\n:\n"%s/Patient/1" , "display":"\xd0\x90\\u0411 \\"%s\\""},"c":1E400}\n'
    ) % (PLATFORM.encode(), b"\\\\")
    expected = body.replace(PLATFORM.encode(), GATEWAY.encode())
    for size in (None, 1, 5):
        assert run(body, size=size)[0] == expected


@pytest.mark.parametrize("size", [None, 1])
def test_values_are_distinguished_from_names(size):
    """Numbers, literals, and strings with quotes, backslashes and brackets."""
    body = {
        "entry": 1.5,
        'a "quoted{ key': 'a " { [',
        "ends with a backslash\\": "\\",
        "both": '\\" \\\\"',
        "resourceType": "Basic",
        "subject": reference(),
    }
    assert run(body, size=size)[0] == json.dumps(body).replace(PLATFORM, GATEWAY).encode()


@pytest.mark.parametrize("scheme", ["https", "HTTPS"])
def test_a_link_with_a_second_url_in_its_query_is_one_link(scheme):
    """Counted as rewritten once, however its base is spelled."""
    body = b'{"subject":{"reference":"%s/Patient?a=\'%s/Patient/1\'"}}'
    link = (PLATFORM.replace("https", scheme).encode(), PLATFORM.encode())
    assert run(body % link) == (body % (GATEWAY.encode(), PLATFORM.encode()), 1, 0)


@pytest.mark.parametrize("slash", ["\\/", "\\u002f", "\\u002F"])
def test_escaped_slashes_are_read_and_kept(slash):
    """As PHP and others write them."""
    body = b'{"subject":{"reference":"%s/Patient/1"}}' % PLATFORM.encode()
    body = body.replace(b"/", slash.encode())
    expected = b'{"subject":{"reference":"%s/Patient/1"}}' % GATEWAY.encode()
    assert run(body)[0] == expected.replace(b"/", slash.encode())


def test_an_escaped_host_and_key_are_read():
    host = "".join(f"\\u{ord(char):04x}" for char in "playground.dhp.uz")
    body = f'{{"subject":{{"\\u0072eference":"https://{host}/fhir/Patient/1"}}}}'.encode()
    assert json.loads(run(body)[0]) == {"subject": {"reference": f"{GATEWAY}/Patient/1"}}


def test_nesting_beyond_the_limit_passes_and_what_follows_is_rewritten():
    deep = b'{"a":[' * 20_000 + b'{"reference":"%s/Patient/1"}' % PLATFORM.encode() + b"]}" * 20_000
    body = b'{"x":%s,"subject":{"reference":"%s/Patient/1"}}' % (deep, PLATFORM.encode())
    expected = b'{"x":%s,"subject":{"reference":"%s/Patient/1"}}' % (deep, GATEWAY.encode())
    assert run(body)[0] == expected
    assert run(body, size=1000)[0] == expected


def test_arrays_in_arrays_are_counted():
    """FHIR has none; what follows them is rewritten."""
    for opening, closing in ((b"[[ [", b"] ]]"), (b"[" * 500, b"]" * 500), (b"[[{", b"}]]")):
        body = b'[%s"a":[[1],"b"]%s,{"subject":{"reference":"%s/Patient/1"}},[[' % (
            opening,
            closing,
            PLATFORM.encode(),
        )
        for size in (None, 1, 7):
            assert run(body, size=size)[0] == body.replace(PLATFORM.encode(), GATEWAY.encode())


def test_memory_does_not_grow_with_the_body():
    """Endless strings, text without links, and long searchsets."""
    entry = b'{"fullUrl":"%s/Patient/1","resource":{"resourceType":"Basic"}},' % PLATFORM.encode()
    parts = (b"A" * 65_000, b'{"a":[{"b":"c"}]},' * 4000, entry * 800)
    for part in parts:
        rewriter = JsonRewriter(LINKS.responses)
        rewriter.feed(b'{"resourceType":"Bundle","type":"searchset","entry":[')
        rewriter.feed(b'"' if part[:1] == b"A" else b"")
        tracemalloc.start()
        for _ in range(100):
            rewriter.feed(part)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2_000_000


def test_a_string_too_long_for_a_url_passes():
    body = b'{"photo":{"url":"%s/Binary/%s"},"a":{"reference":"%s/Patient/1"}}' % (
        PLATFORM.encode(),
        b"x" * 70_000,
        PLATFORM.encode(),
    )
    results = [run(body, size=size) for size in (None, 1000, 33_333)]
    assert results[0] == results[1] == results[2]
    assert results[0][1] == 1


def test_a_truncated_body_is_forwarded_completely():
    """With what was pending."""
    for body in (signed(), document(), LISTED["references"]):
        raw = json.dumps(body).encode()
        for end in range(0, len(raw), 7):
            text = run(raw[:end])[0].replace(GATEWAY.encode(), PLATFORM.encode())
            assert text == raw[:end]


def test_ndjson_is_rewritten_line_by_line():
    """An invalid line does not affect the next."""
    good = b'{"resourceType":"Basic","subject":{"reference":"%s/Patient/1"}}'
    lines = [good % PLATFORM.encode(), b'{"broken":["', b"", good % PLATFORM.encode(), b'{"a":1}']
    body = b"\n".join(lines)
    for size in (None, 1, 50):
        text, rewritten, _ = run(body, size=size, kind="application/fhir+ndjson")
        assert text == body.replace(PLATFORM.encode(), GATEWAY.encode())
        assert rewritten == 2


def to_platform(body, kind="application/fhir+json"):
    return json.loads(run(body, kind=kind, direction="to-platform")[0])


def test_a_transaction_is_mapped_to_the_platform():
    """fullUrls, references to them, and the queries of its requests."""
    resource = {"resourceType": "Basic", "subject": {"reference": f"{GATEWAY}/Patient/1"}}
    encoded = "http%3A%2F%2F127.0.0.1%3A8080%2Ffhir%2FPatient%2F1"
    entries = [
        {
            "fullUrl": f"{GATEWAY}/Basic/1",
            "resource": resource,
            "request": {
                "method": "POST",
                "url": f"Basic?subject={GATEWAY}/Patient/1&x=1",
                "ifNoneExist": f"subject={encoded}",
            },
        },
        {"fullUrl": "urn:uuid:1", "request": {"method": "GET", "url": f"{GATEWAY}/Patient/1"}},
        {"request": {"method": "GET", "url": f"{GATEWAY}/Basic?subject={GATEWAY}/Patient/1"}},
    ]
    body = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
    expected = json.dumps(body).replace(GATEWAY, PLATFORM)
    expected = expected.replace(encoded, "https%3A%2F%2Fplayground.dhp.uz%2Ffhir%2FPatient%2F1")
    assert to_platform(body) == json.loads(expected)


@pytest.mark.parametrize("size", [None, 50])
@pytest.mark.parametrize("chars", ["%", "%3AF", "htp", "/:%", ""])
def test_a_percent_encoded_url_is_found_in_every_spelling(size, chars):
    """Any of its characters may be escaped."""
    encoded = "http%3A%2F%2F127.0.0.1%3A8080%2Ffhir%2FPatient%2F1"
    request = {"method": "PUT", "url": "Basic", "ifNoneExist": "subject=HERE"}
    body = {"resourceType": "Bundle", "type": "transaction", "entry": [{"request": request}]}
    spelled = "".join(f"\\u{ord(c):04x}" if c in chars or not chars else c for c in encoded)
    text = json.dumps(body).replace("HERE", spelled).encode()
    expected = json.dumps(body).replace(
        "HERE", "https%3A%2F%2Fplayground.dhp.uz%2Ffhir%2FPatient%2F1"
    )
    result = run(text, size=size, direction="to-platform")
    assert (json.loads(result[0]), result[1]) == (json.loads(expected), 1)


def test_a_query_in_a_request_is_escaped_as_it_was():
    """Slashes, quotes and letters outside ASCII."""
    body = '{"resourceType":"Bundle","entry":[{"request":{"ifNoneExist":"%s"}}],"type":"batch"}'
    for text in (rf"a={GATEWAY}/x&n=\"Али", rf"n=\u0410\\&a={GATEWAY}/x"):
        for slash in ("/", "\\/"):
            raw = (body % text).replace("/", slash)
            expected = (body % text.replace(GATEWAY, PLATFORM)).replace("/", slash)
            assert run(raw.encode(), direction="to-platform")[0] == expected.encode()


@pytest.mark.parametrize(
    "rest",
    [
        b"\\ud800\xd0\x96",
        b"\\uDC80\xd0\x96",
        b"\\ud83d\\ude00\\ud83d\xd0\x96",
        b"\xd0\x96\xff\x80",
        b"\\ud800",
    ],
)
def test_a_query_with_a_lone_surrogate_is_mapped(rest):
    """Octets that are not UTF-8 too."""
    body = b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"url":"%s/P?n=%s"}}]}'
    text, rewritten, _ = run(body % (GATEWAY.encode(), rest), direction="to-platform")
    expected = body % (PLATFORM.encode(), rest)
    assert json.loads(text.decode("utf-8", "surrogateescape")) == json.loads(
        expected.decode("utf-8", "surrogateescape")
    )
    assert rewritten == 1


def test_a_query_that_cannot_be_escaped_again_is_unchanged():
    """Invalid UTF-8 beside an escaped surrogate would be ambiguous."""
    body = b'{"resourceType":"Bundle","type":"batch","entry":[{"request":{"url":"%s/P?n=%s"}}]}'
    body %= (GATEWAY.encode(), b"\xff\\udcff")
    assert run(body, direction="to-platform")[0] == body


def test_a_json_patch_is_mapped_by_its_path():
    """`value` is what `path` names, in any order."""
    url = f"{GATEWAY}/Patient/1"
    patch = [
        {"op": "replace", "path": "/subject/reference", "value": url},
        {"value": url, "op": "replace", "path": "/subject/reference"},
        {"op": "add", "path": "/performer/-", "value": {"reference": url}},
        {"op": "add", "path": "/photo", "value": [{"url": f"{GATEWAY}/Binary/1"}]},
    ]
    kind = "application/json-patch+json"
    assert to_platform(patch, kind) == json.loads(json.dumps(patch).replace(GATEWAY, PLATFORM))
    kept = [
        {"op": "add", "path": "/meta/profile/0", "value": url},
        {"op": "add", "path": "/note/0/text", "value": url},
        {"op": "add", "path": "/extension/-", "value": {"url": url, "valueString": url}},
        {"op": "add", "value": url},
    ]
    assert to_platform(kept, kind) == kept


@pytest.mark.parametrize("rest", ["/Patient/a_1", f"/Patient/{'1' * 65}", "/metadata", "/"])
def test_another_string_of_a_fhirpath_patch_is_unchanged(rest):
    """An id has at most 64 letters, digits, hyphens and dots."""
    part = [{"name": "value", "valueString": GATEWAY + rest}]
    body = {"resourceType": "Parameters", "parameter": [{"name": "operation", "part": part}]}
    assert to_platform(body) == body


URLS = [
    f"{PLATFORM}/Patient/1",
    f"{PLATFORM}X",
    f"see {PLATFORM}/Patient/1",
    'a "quoted\\ text',
    "",
]
KEYS = ["reference", "url", "fullUrl", "resourceType", "type", "signature", "entry", "resource"]
KEYS += ["contained", "link", "photo", "subject", 'odd"key\\']
STRINGS = st.sampled_from([*URLS, "Bundle", "Provenance", "document", "searchset", "collection"])
VALUES = st.recursive(
    STRINGS | st.integers() | st.none() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=25,
)


@settings(max_examples=150)
@given(VALUES, st.booleans(), st.integers(1, 40), st.booleans(), st.data())
def test_the_result_does_not_depend_on_chunks(value, pretty, size, slashes, data):
    """Also for text that is no JSON, and with pending edits."""
    if data.draw(st.booleans()):
        value = signed(more=value)
    body = json.dumps(value, indent=2 if pretty else None, ensure_ascii=pretty).encode()
    body = body.replace(b"/", b"\\/") if slashes else body
    cut = data.draw(st.integers(0, len(body)))
    junk = data.draw(st.sampled_from([b"", b'"', b"{", b"]", b"\\", b":", b","]))
    body = body[:cut] + junk + body[cut:]
    whole = run(body)
    assert run(body, size=size) == whole
    assert run(body, size=1) == whole


@settings(max_examples=150)
@given(VALUES, st.booleans())
def test_rewriting_back_gives_the_original(value, slashes):
    body = json.dumps(value).encode()
    body = body.replace(b"/", b"\\/") if slashes else body
    there, rewritten, _ = run(body)
    assert run(there, direction="to-platform") == (body, rewritten, 0)


@settings(max_examples=100)
@given(VALUES, st.integers(1, 40))
def test_a_body_without_platform_urls_is_byte_identical(value, size):
    body = json.dumps(value).replace("dhp.uz", "dhp.example").replace("DHP.UZ", "x").encode()
    assert run(body, size=size) == (body, 0, 0)


@pytest.mark.parametrize("length", [0, 200_000])
def test_a_null_character_is_unchanged(length):
    """It could be taken for the placeholder of the host."""
    links = LinkMap("https://dhp.uz/fhir", "http://gw.dhp.uz:8080/fhir")
    rewriter = rewriter_for("application/fhir+json", links, "to-gateway")
    before = b'{"resourceType":"Basic","id":"5\x00 mg%s","subject":{"reference":"%s/Patient/1"}}'
    body = before % (b"x" * length, b"https://dhp.uz/fhir")
    chunks = rewriter.transform_complete(body) or [rewriter.feed(body), rewriter.finish()]
    assert b"".join(chunks) == before % (b"x" * length, b"http://gw.dhp.uz:8080/fhir")


@pytest.mark.parametrize("blanks", [0, 95, 96, 97, 5000])
def test_any_number_of_blanks_may_precede_a_link(blanks):
    body = '{"resourceType":"Basic","subject":{"reference":%s"%s/Patient/1"}}'
    sent = run((body % (" " * blanks, PLATFORM)).encode())[0]
    assert sent == (body % (" " * blanks, GATEWAY)).encode()


@pytest.mark.parametrize("mark", ["?", "\\u003f", "\\u003F"])
def test_a_query_is_rewritten_with_any_spelling_of_its_question_mark(mark):
    """Also where the URL before the query is the gateway's."""
    url = "%s/Patient" + mark + "identifier=%s/x"
    body = (
        '{"resourceType":"Bundle","type":"transaction","entry":[{"request":{"method":"GET","url":"'
        + url
        + '"}}]}'
    )
    sent = run((body % (GATEWAY, GATEWAY)).encode(), direction="to-platform")[0]
    assert json.loads(sent) == json.loads(body % (PLATFORM, PLATFORM))
