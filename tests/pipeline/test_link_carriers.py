"""Every element, parameter and field of a request that may hold a gateway URL, in each spelling.

The platform must receive its own URL there, and everything else as the caller sent it.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from urllib.parse import quote, unquote
from xml.etree import ElementTree as ET

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, http
from tests.doubles.wire import fetch, get, post

GATEWAY = "http://gateway/fhir"
JSON, XML = "application/fhir+json", "application/fhir+xml"
FORM, GRAPHQL = "application/x-www-form-urlencoded", "application/graphql"
JSON_PATCH = "application/json-patch+json"

SPELLINGS = {
    "plain": lambda url: url,
    "percent-encoded": lambda url: quote(url, safe=""),
    "percent-encoded, lower case": lambda url: url.replace(":", "%3a").replace("/", "%2f"),
    "percent-encoded in part": lambda url: url.replace(":", "%3A"),
    "escaped slash": lambda url: url.replace("/", "\\/"),
    "escaped slash as a number": lambda url: url.replace("/", "\\u002f"),
    "character references": lambda url: url.replace("/", "&#47;"),
}
PERCENT = ("plain", *[name for name in SPELLINGS if name.startswith("percent")])
ESCAPED = ("plain", "escaped slash", "escaped slash as a number")
REFERENCED = ("plain", "character references")


@dataclass(frozen=True)
class Carrier:
    """A request in which `URL` stands for a base, as the spelling writes it."""

    target: str
    body: str = ""
    content_type: str = JSON
    headers: tuple[str, ...] = ()
    method: str = "POST"
    spellings: tuple[str, ...] = ("plain",)

    def request(self, spelled: str) -> bytes:
        """Return the request of a caller."""
        target = self.target.replace("URL", spelled)
        headers = [line.replace("URL", spelled) for line in self.headers]
        if not self.body:
            return get(target, *headers, method=self.method)
        body = self.content(spelled).encode()
        return post(
            target, body, f"Content-Type: {self.content_type}", *headers, method=self.method
        )

    def content(self, spelled: str) -> str:
        """Return the body; a text between two marks is sent as base64."""
        before, *rest = self.body.replace("URL", spelled).split("~")
        if not rest:
            return before
        return before + base64.b64encode(rest[0].encode()).decode() + rest[1]


def bundle(*entries: str) -> str:
    members = f'"resourceType":"Bundle","type":"transaction","entry":[{",".join(entries)}]'
    return f"{{{members}}}"


def xml_bundle(*entries: str) -> str:
    members = f'<type value="batch"/>{"".join(entries)}'
    return f'<Bundle xmlns="http://hl7.org/fhir">{members}</Bundle>'


FILTER = "subject%20eq%20URL/Patient/1%20and%20(performer%20eq%20%22URL/Practitioner/2%22)"
FILTER_TEXT = "subject eq URL/Patient/1 and (performer eq URL/Practitioner/2)"
PATCH = '[{"op":"add","path":"/subject","value":{"reference":"URL/Patient/1"}}]'
PATCH_DATA = (
    f'"resource":{{"resourceType":"Binary","contentType":"{JSON_PATCH}","data":"~{PATCH}~"}}'
)
PATCHED = '"request":{"method":"PATCH","url":"Observation/1"}'
QUERY = '{ObservationList(subject: "URL/Patient/1", _filter: "x eq URL/Patient/2") {id}}'
SUBSCRIPTION = '{"resourceType":"Subscription","criteria":"%s","channel":{"type":"rest-hook"}}'
HOOK = "Observation?subject=URL/Patient/1&amp;code=a"
PARAMETER = '{"resourceType":"Parameters","parameter":[{"name":"operation","part":[%s]}]}'

CARRIERS = {
    "a query": Carrier(
        "/fhir/Observation?a=b&subject=URL/Patient/1,URL/Patient/2", spellings=PERCENT
    ),
    "_filter in a query": Carrier(f"/fhir/Observation?a=b&_filter={FILTER}&c=d", spellings=PERCENT),
    "_filter with plus signs": Carrier(
        "/fhir/Observation?_filter=subject+eq+URL/Patient/1+or+(x+eq+URL/Patient/2)",
        spellings=PERCENT,
    ),
    "_filter with an encoded name": Carrier("/fhir/Observation?%5Ffilter=a%20eq%20URL/Patient/1"),
    "a search for subscriptions": Carrier(
        "/fhir/Subscription?criteria=Observation%3Fsubject%3DURL/Patient/1", spellings=PERCENT
    ),
    "a search form": Carrier(
        "/fhir/Observation/_search", "x=y&subject=URL/Patient/1", FORM, spellings=PERCENT
    ),
    "_filter in a search form": Carrier(
        "/fhir/Observation/_search", f"x=y&_filter={FILTER}", FORM, spellings=PERCENT
    ),
    "If-None-Exist": Carrier(
        "/fhir/Observation",
        "{}",
        headers=("If-None-Exist: subject=URL/Patient/1",),
        spellings=PERCENT,
    ),
    "_filter in If-None-Exist": Carrier(
        "/fhir/Observation", "{}", headers=(f"If-None-Exist: _filter={FILTER}",), spellings=PERCENT
    ),
    "X-Provenance": Carrier(
        "/fhir/Observation",
        "{}",
        headers=(
            'X-Provenance: {"resourceType":"Provenance","target":[{"reference":"URL/Patient/1"}]}',
        ),
        spellings=ESCAPED,
    ),
    "a reference": Carrier(
        "/fhir/Observation",
        '{"resourceType":"Observation","subject":{"reference":"URL/Patient/1"}}',
        spellings=ESCAPED,
    ),
    "a reference in XML": Carrier(
        "/fhir/Observation",
        '<Observation xmlns="http://hl7.org/fhir"><subject><reference value="URL/P/1"/></subject>'
        "</Observation>",
        XML,
        spellings=REFERENCED,
    ),
    "entry.request.url": Carrier(
        "/fhir",
        bundle('{"request":{"method":"GET","url":"Observation?subject=URL/Patient/1"}}'),
        spellings=(*PERCENT, *ESCAPED[1:]),
    ),
    "_filter in entry.request.url": Carrier(
        "/fhir",
        bundle(f'{{"request":{{"method":"GET","url":"Observation?_filter={FILTER}"}}}}'),
        spellings=(*PERCENT, *ESCAPED[1:]),
    ),
    "entry.request.ifNoneExist": Carrier(
        "/fhir",
        bundle('{"request":{"method":"POST","url":"X","ifNoneExist":"subject=URL/Patient/1"}}'),
        spellings=(*PERCENT, *ESCAPED[1:]),
    ),
    "_filter in entry.request.ifNoneExist": Carrier(
        "/fhir",
        bundle(f'{{"request":{{"method":"POST","url":"X","ifNoneExist":"_filter={FILTER}"}}}}'),
        spellings=(*PERCENT, *ESCAPED[1:]),
    ),
    "_filter in an entry in XML": Carrier(
        "/fhir",
        xml_bundle(
            f'<entry><request><url value="Observation?a=b&amp;_filter={FILTER}"/></request></entry>'
        ),
        XML,
        spellings=(*PERCENT, *REFERENCED[1:]),
    ),
    "valueUri in Parameters": Carrier(
        "/fhir/X/$y",
        '{"resourceType":"Parameters","parameter":[{"name":"a","valueUri":"URL/Patient/1"}]}',
        spellings=ESCAPED,
    ),
    "a JSON Patch": Carrier(
        "/fhir/Observation/1", PATCH, JSON_PATCH, method="PATCH", spellings=ESCAPED
    ),
    "a JSON Patch of criteria": Carrier(
        "/fhir/Subscription/1",
        '[{"op":"replace","value":"Observation?subject=URL/Patient/1","path":"/criteria"}]',
        JSON_PATCH,
        method="PATCH",
        spellings=ESCAPED,
    ),
    "a JSON Patch of filterBy": Carrier(
        "/fhir/Subscription/1",
        '[{"op":"add","path":"/filterBy/-","value":{"filterParameter":"a","value":"URL/Patient/1"}},'
        '{"op":"replace","path":"/filterBy/0/value","value":"URL/Patient/1"}]',
        JSON_PATCH,
        method="PATCH",
        spellings=ESCAPED,
    ),
    "a FHIRPath Patch": Carrier(
        "/fhir/Observation/1",
        PARAMETER % '{"name":"value","valueString":"URL/Patient/1"}',
        method="PATCH",
        spellings=ESCAPED,
    ),
    "a FHIRPath Patch in a Bundle": Carrier(
        "/fhir",
        bundle(
            f'{{"resource":{PARAMETER},{PATCHED}}}'
            % '{"name":"value","valueReference":{"reference":"URL/Patient/1"}}'
        ),
        spellings=ESCAPED,
    ),
    "a JSON Patch in a Bundle": Carrier(
        "/fhir", bundle(f"{{{PATCH_DATA},{PATCHED}}}", "{}"), spellings=ESCAPED
    ),
    "a JSON Patch in a Bundle behind its request": Carrier(
        "/fhir", bundle("{}", f"{{{PATCHED},{PATCH_DATA}}}"), spellings=ESCAPED
    ),
    "a JSON Patch in a long Bundle": Carrier(
        "/fhir",
        bundle(
            '{"resource":{"resourceType":"Basic","id":"%s"}}' % ("a" * 200_000),
            f"{{{PATCH_DATA},{PATCHED}}}",
            '{"fullUrl":"URL/Patient/1"}',
        ),
    ),
    "a JSON Patch in a Bundle in XML": Carrier(
        "/fhir",
        xml_bundle(
            f'<entry><resource><Binary><contentType value="{JSON_PATCH}"/><data value="~{PATCH}~"/>'
            '</Binary></resource><request><method value="PATCH"/></request></entry>'
        ),
        XML,
    ),
    "Subscription.criteria": Carrier(
        "/fhir/Subscription",
        SUBSCRIPTION % "Observation?code=a&subject=URL/Patient/1",
        spellings=(*PERCENT, *ESCAPED[1:]),
    ),
    "_filter in Subscription.criteria": Carrier(
        "/fhir/Subscription", SUBSCRIPTION % f"Observation?_filter={FILTER_TEXT}", spellings=ESCAPED
    ),
    "an absolute Subscription.criteria": Carrier(
        "/fhir/Subscription", SUBSCRIPTION % "URL/Observation?code=a", spellings=ESCAPED
    ),
    "Subscription.criteria in a Bundle": Carrier(
        "/fhir",
        bundle('{"fullUrl":"URL/Subscription/1","resource":%s}' % (SUBSCRIPTION % "A?b=URL/C/1")),
        spellings=ESCAPED,
    ),
    "Subscription.criteria in XML": Carrier(
        "/fhir/Subscription",
        f'<Subscription xmlns="http://hl7.org/fhir"><criteria value="{HOOK}"/></Subscription>',
        XML,
        spellings=REFERENCED,
    ),
    "Subscription.filterBy": Carrier(
        "/fhir/Subscription",
        '{"resourceType":"Subscription","filterBy":[{"filterParameter":"subject","value":'
        '"URL/Patient/1,URL/Patient/2"}]}',
        spellings=ESCAPED,
    ),
    "Subscription.filterBy in XML": Carrier(
        "/fhir/Subscription",
        '<Subscription xmlns="http://hl7.org/fhir"><filterBy><filterParameter value="a"/>'
        '<value value="URL/Patient/1"/></filterBy></Subscription>',
        XML,
        spellings=REFERENCED,
    ),
    "$graphql in a query": Carrier(
        f"/fhir/$graphql?query={quote(QUERY, safe='')}"
        "&variables=%7B%22a%22%3A%22URL/Patient/1%22%7D",
        spellings=("plain", "percent-encoded", "escaped slash as a number"),
    ),
    "$graphql of a resource in a query": Carrier(
        f"/fhir/Patient/1/%24graphql?query={quote(QUERY, safe='')}", spellings=PERCENT
    ),
    "$graphql in a Bundle": Carrier(
        "/fhir",
        bundle(f'{{"request":{{"method":"GET","url":"Patient/1/$graphql?query={quote(QUERY)}"}}}}'),
        spellings=PERCENT,
    ),
    "$graphql as text": Carrier("/fhir/$graphql", QUERY, GRAPHQL, spellings=ESCAPED),
    "$graphql as JSON": Carrier(
        "/fhir/$graphql",
        json.dumps(
            {
                "query": QUERY,
                "operationName": "a",
                "variables": {
                    "a": "URL/Patient/1",
                    "b": ["URL/Patient/1,URL/Patient/2"],
                    "resource": {
                        "resourceType": "Basic",
                        "subject": {"reference": "URL/Patient/1"},
                    },
                },
            }
        ),
        "application/json",
        spellings=ESCAPED,
    ),
    "$graphql as JSON with escapes of its own": Carrier(
        "/fhir/$graphql",
        json.dumps({"query": QUERY.replace("URL", "http:\\/\\/gateway\\/fhir")}),
        "application/json",
    ),
}


def normalized(content: str, content_type: str) -> object:
    """Return the content without differences that are insignificant in its format."""
    if content_type == XML:
        return ET.canonicalize(content)
    if content_type not in {JSON, JSON_PATCH, "application/json"}:
        return content
    value = json.loads(content)
    for entry in value.get("entry", ()) if isinstance(value, dict) else ():
        resource = entry.get("resource", {})
        if resource.get("resourceType") == "Binary":
            data = base64.b64decode(resource["data"]).decode()
            try:
                resource["data"] = json.loads(data)
            except ValueError:
                resource["data"] = data
    return value


def received(platform: Platform) -> tuple[str, str, dict[str, str | None]]:
    seen = [each for each in platform.requests if not each.target.endswith("/metadata")][-1]
    fields = {name: seen.header(name) for name in ("if-none-exist", "x-provenance")}
    return seen.target, seen.body.decode(), fields


CASES = [(name, spelling) for name in CARRIERS for spelling in CARRIERS[name].spellings]


@pytest.mark.parametrize(("name", "spelling"), CASES)
async def test_a_gateway_url_reaches_the_platform_as_its_own(
    gateway: RunningGateway, platform: Platform, name: str, spelling: str
) -> None:
    carrier, spell = CARRIERS[name], SPELLINGS[spelling]
    await fetch(gateway.address, carrier.request(spell(GATEWAY)))
    target, body, fields = received(platform)
    wanted = spell(platform.url)
    assert target == carrier.target.replace("/fhir", platform.base_path, 1).replace("URL", wanted)
    for line in carrier.headers:
        field, _, value = line.replace("URL", wanted).partition(": ")
        assert fields[field.lower()] == value
    if carrier.body:
        sent = carrier.content(wanted)
        if "escapes of its own" in name:
            sent = sent.replace(
                "http:\\\\/\\\\/gateway\\\\/fhir", platform.url.replace("/", "\\\\/")
            )
        assert normalized(body, carrier.content_type) == normalized(sent, carrier.content_type)


OTHERS = (
    "http://gateway/fhirX",
    "http://gateway.example/fhir",
    "http://gateway:8081/fhir",
    "http://a@gateway/fhir",
    "http://gateway/fhir/..",
)


@pytest.mark.parametrize("name", [name for name in CARRIERS if "of its own" not in name])
async def test_a_url_that_resembles_one_of_the_gateway_is_unchanged(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    """Another path, host or port, userinfo, and a path that leaves the base."""
    carrier = CARRIERS[name]
    for other in OTHERS:
        await fetch(gateway.address, carrier.request(other))
        target, body, fields = received(platform)
        wanted = carrier.target.replace("/fhir", platform.base_path, 1).replace("URL", other)
        assert (target, body) == (wanted, carrier.content(other))
        for line in carrier.headers:
            field, _, value = line.replace("URL", other).partition(": ")
            assert fields[field.lower()] == value


@pytest.mark.parametrize(
    "name", [name for name in CARRIERS if CARRIERS[name].spellings == PERCENT and "Bun" not in name]
)
async def test_a_url_may_be_percent_encoded_letter_by_letter(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    carrier = CARRIERS[name]
    await fetch(gateway.address, carrier.request("".join(f"%{ord(char):02x}" for char in GATEWAY)))
    target, body, fields = received(platform)
    seen = unquote(" ".join((target, body, fields["if-none-exist"] or "")))
    assert platform.url in seen
    assert GATEWAY not in seen


UNCHANGED = {
    "a canonical as criteria": (JSON, SUBSCRIPTION % "URL/SubscriptionTopic/a"),
    "Subscription.topic": (
        JSON,
        '{"resourceType":"Subscription","topic":"URL/SubscriptionTopic/a"}',
    ),
    "Subscription.endpoint": (
        JSON,
        '{"resourceType":"Subscription","endpoint":"URL/hook?a=URL/Patient/1","reason":"URL/a",'
        '"channel":{"endpoint":"URL/hook?a=URL/Patient/1","header":["a: URL/Patient/1"]}}',
    ),
    "criteria of another resource": (
        JSON,
        '{"resourceType":"Basic","criteria":"A?b=URL/Patient/1","filterBy":[{"value":"URL/C/1"}]}',
    ),
    "filterBy elsewhere": (
        JSON,
        '{"resourceType":"Subscription","x":{"filterBy":[{"value":"URL/C/1"}]},"value":"URL/C/1"}',
    ),
    "a query of a resource": (JSON, '{"resourceType":"Basic","query":"(a: \\"URL/Patient/1\\")"}'),
    "variables of a resource": (JSON, '{"resourceType":"Basic","variables":{"a":"URL/Patient/1"}}'),
    "a Binary": (
        JSON,
        f'{{"resourceType":"Binary","contentType":"{JSON_PATCH}","data":"~{PATCH}~"}}',
    ),
    "a Binary that is created": (
        JSON,
        bundle(f'{{{PATCH_DATA},"request":{{"method":"POST","url":"Binary"}}}}'),
    ),
    "a Binary beside a patch": (
        JSON,
        bundle(
            f"{{{PATCH_DATA}}}",
            f'{{{PATCHED},"resource":{{"resourceType":"Basic"}}}}',
            f'{{{PATCH_DATA},"request":{{"method":"PUT","url":"Binary/1"}}}}',
        ),
    ),
    "data of another resource": (
        JSON,
        bundle(f'{{"resource":{{"resourceType":"Basic","data":"~{PATCH}~"}},{PATCHED}}}'),
    ),
    "a Binary within a Bundle within one": (
        JSON,
        bundle(
            f'{{"resource":{bundle(f"{{{PATCH_DATA},{PATCHED}}}")},"request":{{"method":"POST"}}}}'
        ),
    ),
    "a patch in a document": (
        JSON,
        bundle(f"{{{PATCH_DATA},{PATCHED}}}").replace("transaction", "document"),
    ),
    "text in a patch": (
        JSON,
        bundle(
            f"{{{PATCH_DATA},{PATCHED}}}".replace("/subject", "/note/0/text").replace(
                '{"reference":"URL/Patient/1"}', '"URL/Patient/1"'
            )
        ),
    ),
    "what is no patch": (
        JSON,
        bundle(f"{{{PATCH_DATA},{PATCHED}}}".replace(PATCH, "see URL/Patient/1")),
    ),
    "what is no base64": (
        JSON,
        bundle(f"{{{PATCH_DATA},{PATCHED}}}".replace(f"~{PATCH}~", "*URL/Patient/1")),
    ),
    "narrative and identifiers": (
        JSON,
        '{"resourceType":"Patient","text":{"div":"<div>URL/Patient/1</div>"},"identifier":[{"system"'
        ':"URL/sid","value":"URL/Patient/1"}],"meta":{"profile":["URL/StructureDefinition/a"]}}',
    ),
    "a Binary in XML": (
        XML,
        xml_bundle(
            f'<entry><resource><Binary><data value="~{PATCH}~"/></Binary></resource>'
            '<request><method value="POST"/></request></entry>'
        ),
    ),
}


@pytest.mark.parametrize("name", UNCHANGED)
async def test_what_only_looks_like_a_link_is_unchanged(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    content_type, body = UNCHANGED[name]
    carrier = Carrier("/fhir/X", body, content_type)
    await fetch(gateway.address, carrier.request(GATEWAY))
    assert platform.requests[0].body.decode() == carrier.content(GATEWAY)


@pytest.mark.parametrize(
    "query",
    [
        "note=see%20URL/Patient/1",
        "query=%7Ba(b:%22URL/Patient/1%22)%7D",
        "_filter=identifier%20eq%20URL/sid|1",
        "_filter=identifier%20eq%20URL/sid%7C1",
    ],
)
async def test_text_and_identifiers_in_a_query_are_unchanged(
    gateway: RunningGateway, platform: Platform, query: str
) -> None:
    await fetch(gateway.address, get("/fhir/Observation?" + query.replace("URL", GATEWAY)))
    assert platform.requests[0].target.partition("?")[2] == query.replace("URL", GATEWAY)


@pytest.mark.parametrize(
    "name", [name for name in CARRIERS if "Subscription." in name and "Bundle" not in name]
)
async def test_a_subscription_is_read_as_it_was_sent(
    gateway: RunningGateway, platform: Platform, name: str
) -> None:
    """So that a program can find its Subscription again."""
    carrier = CARRIERS[name]
    platform.respond(
        http(200, carrier.content(platform.url).encode(), ("Content-Type", carrier.content_type))
    )
    response = await fetch(gateway.address, get("/fhir/Subscription/1"))
    assert response.body.decode() == carrier.content(GATEWAY)
