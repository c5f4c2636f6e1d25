"""Bundles of requests, valid and unusual ones, generated from a seed, in JSON and XML."""

from __future__ import annotations

import contextlib
import gzip
import json
import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

from tests.pipeline import bundle_rules
from tests.pipeline.bundle_rules import Allow

GATEWAY = "http://gateway/fhir"
CALLERS = {
    "reader": Allow(("read", "search-type", "batch")),
    "clerk": Allow(
        ("read", "create", "update", "patch", "search-type", "batch", "transaction"),
        ("Patient", "Observation"),
    ),
    "typed": Allow(resources=("Patient", "Observation")),
    "single": Allow(resources=("Observation",)),
    "terms": Allow(resources=("ValueSet",), operations=("$expand",)),
    "expander": Allow(operations=("$expand",)),
    "none": Allow(operations=()),
    "system": Allow(
        ("batch", "search-system", "history-system", "capabilities", "delete", "vread")
    ),
    "transactor": Allow(("transaction", "create")),
    "files": Allow(("batch", "patch", "create", "operation"), ("Patient", "Binary"), ("*",)),
    "keeper": Allow(resources=("Bundle", "Parameters")),
    "outside": Allow(("read", "create")),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
ODD_METHODS = ("get", "Post", "OPTIONS", "TRACE", "", " GET", "GET ", "QUERY", "PURGE", "$x", "1")
TYPES = ("Patient", "Observation", "ValueSet", "Practitioner", "Binary", "Bundle", "Parameters")
PATHS = (
    *("{t}", "{t}", "{t}", "{t}/1", "{t}/1", "{t}/1", "{t}/_search", "{t}/_history"),
    *("{t}/1/_history", "{t}/1/_history/2", "{t}/1/{u}", "{t}/1/*", "{t}/1/_search"),
    *("{t}/$expand", "{t}/1/$expand", "{t}/1/$everything", "{t}/1/_history/2/$expand"),
    *("{t}/1/{u}/_search", "{t}/1/{u}/2", "{t}/1/{u}/$expand", "$expand", "$export", "$graphql"),
    *("", "/", "_search", "_history", "metadata", ".well-known/smart-configuration", "metadata/x"),
    *("Fhirless/1", "{t}/a_b", "{t}/$", "$", "_include", "{t}/1/2", "{t}/_history/1", "{t}/*"),
)
QUERIES = (
    *("", "", "", "", "", "code=1", "_id=1&_count=5", "identifier=urn:x%7C1", "_format=json"),
    *("subject:Patient.name=x", "patient.name=x", "subject.name=x", "_sort=-date,code"),
    *("_sort=subject:Patient.name", "_include=Observation:subject:Patient", "_include=*"),
    *("_include=Observation:subject", "_revinclude=Observation:subject", "a=1;_include=*"),
    *("_revinclude=Provenance:target", "_has:Observation:subject:code=1", "_method=DELETE"),
    *("_has:Practitioner:x:name=1", "_query=x", "%5Fmethod=DELETE", "_Include=x", "_filter=x"),
    *("_graph=x", "code", "name:exact=x", "_type=Patient", "_list=1", "name=%D0%98", "name=%C8"),
)
# What is allowed by its parts, and hides another request.
TRAPS = (
    *(("POST", url, "Bundle") for url in ("/", "?_format=json", "/?", "http://gateway/fhir")),
    ("GET", "http://gateway/fhir", ""),
    *3 * (("GET", ".well-known/smart-configuration", ""),),
    *(("POST", f"{kind}/_search", "Parameters") for kind in ("Patient", "Observation", "Bundle")),
    *(("PUT", "Observation/1", "Patient"), ("POST", "Patient", "Observation")),
    *(("PATCH", "Observation/1", "Binary"), ("PATCH", "Observation/1", "Patient")),
    *(("POST", "ValueSet/$expand", "Parameters"), ("POST", "ValueSet/$expand", "ValueSet")),
)
CONDITIONS = (
    *("identifier=1", "?identifier=1", "identifier=1 code=2", "_method=DELETE", "subject.name=x"),
    *("subject:Patient.name=x", "Patient?identifier=1", "_include=*", "", " code=1 "),
)


@dataclass
class GeneratedBundle:
    """A Bundle as it is sent, with its caller, Content-Type and Content-Encoding."""

    caller: str
    content_type: str | None
    coding: str | None
    sent: bytes
    read: bytes
    """The same with the platform's base in the place of the gateway's."""

    @property
    def fields(self) -> list[str]:
        """Return the fields of the request."""
        fields = [f"X-Api-Key: {self.caller}"]
        if self.content_type is not None:
            fields.append(f"Content-Type: {self.content_type}")
        return fields if self.coding is None else [*fields, f"Content-Encoding: {self.coding}"]


class JsonObject(list[tuple[str, Any]]):
    """A JSON object whose names may repeat."""

    def put(self, name: str, value: Any) -> None:
        self[:] = [pair for pair in self if pair[0] != name]
        self.append((name, value))


ALL_ODD = ("entry", "change", "spelling", "announced", "type")


def generate(rng: random.Random, platform: str) -> GeneratedBundle:
    """Return a Bundle, usually unusual in one respect; nearly half of them are allowed."""
    caller = rng.choice(list(CALLERS))
    xml = rng.random() < 0.4
    odd = rng.choices(
        ((), ALL_ODD, *((name,) for name in ALL_ODD)), (30, 8, 34, 12, 12, 6, 2), k=1
    )[0]
    entries = [allowed_entry(rng, caller, platform) for _ in range(rng.choice((0, 1, 1, 1, 2, 4)))]
    if "entry" in odd and entries:
        mutate_entry(rng, rng.choice(entries), platform)
    kinds = [each for each in ("batch", "transaction") if CALLERS[caller].does(each)]
    kind = rng.choice(kinds or ["batch"])
    if "type" in odd:
        kind = rng.choice(("Batch", "history", "message", "collection", "batch-response", ""))
    bundle = JsonObject([("resourceType", "Bundle"), ("type", kind), ("entry", entries)])
    if rng.random() < 0.3:
        bundle.put("meta", JsonObject([("profile", ["http://example.org/p"])]))
    if not entries:
        bundle.remove(("entry", []))
    if rng.random() < 0.2:
        rng.shuffle(bundle)
    if "change" in odd:
        rng.choice(CHANGES)(rng, bundle)
    body = to_xml(bundle) if xml else to_json(bundle)
    if xml and rng.random() < 0.3:
        body = b'<?xml version="1.0"?>' + body
    if "spelling" in odd:
        body = rng.choice(XML_SPELLINGS if xml else JSON_SPELLINGS)(rng, body)
    return with_headers(rng, caller, body, platform, xml=xml, is_odd="announced" in odd)


def with_headers(
    rng: random.Random, caller: str, body: bytes, platform: str, *, xml: bool, is_odd: bool
) -> GeneratedBundle:
    """Choose Content-Type and Content-Encoding of the body."""
    content_type = rng.choice(
        ("application/fhir+xml", "application/xml", "text/xml;charset=UTF-8")
        if xml
        else ("application/fhir+json", "application/json; charset=utf-8", "APPLICATION/FHIR+JSON")
    )
    coding = None
    announced: str | None = content_type
    if is_odd:
        # Which of these the gateway would translate is no matter here.
        body = body.replace(GATEWAY.encode(), platform.encode())
    if is_odd and rng.random() < 0.5:
        coding, body = rng.choice(CODINGS)(body)
    elif rng.random() < 0.3:
        coding, body = rng.choice(("gzip", "gzip", "x-gzip", "GZIP")), gzip.compress(body, 1)
    if is_odd and rng.random() < 0.5:
        announced = rng.choice(CONTENT_TYPES)
    # Only a body without a coding is translated.
    read = body.replace(GATEWAY.encode(), platform.encode()) if coding is None else body
    return GeneratedBundle(caller, announced, coding, body, read)


CONTENT_TYPES = (
    *(None, "text/plain", "text/plain; charset=utf-8", "application/x-www-form-urlencoded"),
    *("application/fhir+json, application/fhir+xml", "application/fhir+json; charset=utf-16"),
    *("application/octet-stream", "application/fhir+ndjson", "multipart/form-data; boundary=x"),
    *("application/fhir+xml", "application/fhir+json", "application/fhir+turtle", "text/html"),
    *("application/fhir+xml; charset=utf-7", "application/fhir+json; fhirVersion=5.0"),
)
CODINGS: tuple[Callable[[bytes], tuple[str | None, bytes]], ...] = (
    lambda body: ("identity", body),
    lambda body: ("deflate", zlib.compress(body)),
    lambda body: ("br", body),
    lambda body: ("gzip, gzip", gzip.compress(gzip.compress(body))),
    lambda body: ("gzip", body),
    lambda body: ("gzip", gzip.compress(body)[:-12]),
    lambda body: ("gzip", gzip.compress(body)[:-4]),
    lambda body: ("gzip", gzip.compress(body) + b"behind"),
    lambda body: ("gzip", gzip.compress(body[:9]) + gzip.compress(body[9:])),
    lambda body: (None, gzip.compress(body)),
)


def allowed_entry(rng: random.Random, caller: str, platform: str) -> JsonObject:
    """Return an entry that the caller may send."""
    while True:
        entry = random_entry(rng, caller, platform)
        with contextlib.suppress(bundle_rules.RejectedError):
            read = bundle_rules.read("application/json", to_json(entry))
            translated = json.loads(json.dumps(read).replace(GATEWAY, platform))
            bundle_rules.check_entry(CALLERS[caller], platform, translated)
            return entry


def mutate_entry(rng: random.Random, entry: JsonObject, platform: str) -> None:
    """Change one respect of an entry."""
    (request,) = (value for name, value in entry if name == "request")
    url = dict(request)["url"]
    kind = url.partition("?")[0].partition("/")[0] or "Patient"
    what = rng.choice(("query", "condition", "resource", "method", "type", "url", "url", "trap"))
    if what == "query":
        request.put("url", f"{url}{'&' if '?' in url else '?'}{rng.choice(QUERIES)}")
    elif what == "condition":
        request.put("ifNoneExist", rng.choice(CONDITIONS))
    elif what == "resource":
        entry.put("resource", resource_of(rng.choice((*TYPES, kind, "Fhirless", "patient", ""))))
    elif what == "method":
        request.put("method", rng.choice((*METHODS, *ODD_METHODS)))
    elif what == "type":
        request.put("url", f"{rng.choice(TYPES)}{url[len(kind) :]}")
    elif what == "url":
        request.put("url", rng.choice(URLS)(url, platform))
    else:
        method, url, kind = rng.choice(TRAPS)
        request.put("method", method)
        request.put("url", url)
        entry[:] = [("request", request), *([("resource", resource_of(kind))] if kind else [])]


def resource_of(kind: str) -> JsonObject:
    inner = JsonObject([("status", "generated")])
    return JsonObject([("resourceType", kind), ("id", "1"), ("text", inner)])


def random_entry(rng: random.Random, caller: str, platform: str) -> JsonObject:
    """Return an entry; types of the caller's limits are more frequent than others."""
    kinds = (*TYPES, *3 * [kind for kind in CALLERS[caller].resources if kind != "*"])
    kind, other = rng.choice(kinds), rng.choice(kinds)
    path, query = rng.choice(PATHS).format(t=kind, u=other), rng.choice(QUERIES)
    url = f"{path}?{query}" if query else path
    if rng.random() < 0.15:
        url = rng.choice(PLAIN_URLS)(url, platform)
    method = rng.choice(METHODS)
    request = JsonObject([("method", method), ("url", url)])
    if rng.random() < (0.3 if method == "POST" else 0.05):
        request.put("ifNoneExist", rng.choice(CONDITIONS))
    if rng.random() < 0.1:
        request.put("ifMatch", 'W/"1"')
    entry = JsonObject([("request", request)])
    if rng.random() < (0.8 if method in ("POST", "PUT", "PATCH") else 0.1):
        resource = resource_of(kind if rng.random() < 0.7 else rng.choice(TYPES))
        entry.insert(rng.randint(0, 1), ("resource", resource))
    if rng.random() < 0.3:
        entry.insert(0, ("fullUrl", "urn:uuid:00000000-0000-4000-8000-000000000001"))
    return entry


Spelling = Callable[[str, str], str]
PLAIN_URLS: tuple[Spelling, ...] = (
    lambda url, _: f"/{url}",
    lambda url, platform: f"{platform}/{url.removeprefix('/')}",
    lambda url, _: f"{GATEWAY}/{url.removeprefix('/')}",
    lambda url, _: f"/r5/{url.removeprefix('/')}",
    lambda url, _: url.replace("t", "%74", 1),
)
URLS: tuple[Spelling, ...] = (
    *PLAIN_URLS,
    lambda url, _: f"./{url}",
    lambda url, _: f"Observation/../{url}",
    lambda url, _: f"Observation/%2e%2E/{url}",
    lambda url, _: f"//{url}",
    lambda url, _: f"//elsewhere.uz/r5/{url}",
    lambda url, _: url.replace("/", "%2F", 1),
    lambda url, _: url.replace("/", "//", 1),
    lambda url, _: url.replace("/", "\\", 1),
    lambda url, _: url.lower(),
    lambda url, _: url.upper(),
    lambda url, _: f"{url}/",
    lambda url, _: f"{url}?",
    lambda url, _: f"{url}#x",
    lambda url, _: f"{url};a=b",
    lambda url, _: f"{url} ",
    lambda url, _: f"\t{url}",
    lambda url, _: f"{url}\u0438",
    lambda url, _: f"{url}%",
    lambda url, _: f"{url}%00",
    lambda url, _: f"{url}?x=%FF",
    lambda url, _: f"https://elsewhere.uz/r5/{url}",
    lambda url, _: f"http://127.0.0.1/r5/{url}",
    lambda url, platform: f"{platform}x/{url}",
    lambda url, platform: f"{platform}//{url}",
    lambda url, platform: f"{platform}/../r5/{url}",
    lambda url, platform: platform.replace("//", "//user@") + f"/{url}",
    lambda url, platform: platform.replace("http", "https") + f"/{url}",
    lambda url, platform: platform.replace("http", "HTTP") + f"/{url}",
    lambda url, platform: platform.replace("r5", "R5") + f"/{url}",
    lambda url, platform: platform,
    lambda url, _: f"http:{url}",
    lambda url, _: f"fhir/{url}",
    lambda url, _: "urn:uuid:00000000-0000-4000-8000-000000000001",
    lambda url, _: "",
)


def to_json(value: Any) -> bytes:
    """Return JSON in which names may repeat."""
    if isinstance(value, JsonObject):
        return b"{%s}" % b",".join(to_json(name) + b":" + to_json(each) for name, each in value)
    if isinstance(value, list):
        return b"[%s]" % b",".join(map(to_json, value))
    return value if isinstance(value, bytes) else json.dumps(value, ensure_ascii=False).encode()


def to_xml(bundle: JsonObject) -> bytes:
    """Return XML with the elements in the same order; members that XML lacks are omitted."""
    return "".join(xml_resource(bundle, ' xmlns="http://hl7.org/fhir"')).encode("utf-8", "replace")


def xml_resource(resource: JsonObject, more: str = "") -> str:
    """Return a resource as an element."""
    kinds = [value for name, value in resource if name == "resourceType"]
    kind = str(kinds[-1]) if kinds and kinds[-1] else "x"
    inner = "".join(xml_element(name, value) for name, value in resource if name != "resourceType")
    return f"<{kind}{more}>{inner}</{kind}>"


def xml_element(name: str, value: Any) -> str:
    """Return an element for a member."""
    if isinstance(value, JsonObject):
        if any(key == "resourceType" for key, _ in value):
            return f"<{name}>{xml_resource(value)}</{name}>"
        inner = "".join(xml_element(key, each) for key, each in value)
        return f"<{name}>{inner}</{name}>"
    if isinstance(value, list):
        return "".join(xml_element(name, each) for each in value)
    if value is None or isinstance(value, bytes):
        return ""
    return f"<{name} value={quoteattr(str(value))}/>"


Change = Callable[[random.Random, JsonObject], None]


def random_object(rng: random.Random, bundle: JsonObject, *names: str) -> JsonObject:
    """Return the Bundle, one of its entries, or an object in one of them."""
    places = [bundle]
    for name, entries in bundle:
        if name == "entry":
            places += entries
            places += [
                value for entry in entries for _, value in entry if isinstance(value, JsonObject)
            ]
    fitting = [place for place in places if not names or any(key in names for key, _ in place)]
    return rng.choice(fitting or [bundle])


def mutation(
    *names: str,
) -> Callable[[Callable[[random.Random, Any], list[tuple[str, Any]]]], Change]:
    """Return a decorator: the function returns what replaces a member."""

    def decorator(function: Callable[[random.Random, Any], list[tuple[str, Any]]]) -> Change:
        def apply(rng: random.Random, bundle: JsonObject) -> None:
            place = random_object(rng, bundle, *names)
            found = [at for at, (name, _) in enumerate(place) if not names or name in names]
            if found:
                at = rng.choice(found)
                place[at : at + 1] = function(rng, place[at])

        return apply

    return decorator


JUDGED = ("type", "entry", "request", "resource", "method", "url", "resourceType", "ifNoneExist")
OTHERS = {"method": "DELETE", "url": "Practitioner/1", "type": "transaction", "resourceType": "X"}
CHANGES: tuple[Change, ...] = (
    *2 * (mutation(*JUDGED)(lambda rng, pair: [pair, (pair[0], OTHERS.get(pair[0], pair[1]))]),),
    *2 * (mutation(*JUDGED)(lambda rng, pair: [(pair[0], OTHERS.get(pair[0], pair[1])), pair]),),
    mutation(*JUDGED)(lambda rng, pair: [(pair[0].upper(), OTHERS.get(pair[0], pair[1])), pair]),
    mutation(*JUDGED)(lambda rng, pair: [pair, (pair[0].title(), OTHERS.get(pair[0], pair[1]))]),
    mutation(*JUDGED)(lambda rng, pair: [pair, (f"{pair[0]} ", pair[1])]),
    mutation(*JUDGED)(lambda rng, pair: [(pair[0].capitalize(), pair[1])]),
    mutation(*JUDGED)(lambda rng, pair: []),
    mutation(*JUDGED)(lambda rng, pair: [(pair[0], None)]),
    mutation(*JUDGED)(lambda rng, pair: [(pair[0], [pair[1]])]),
    mutation(*JUDGED)(lambda rng, pair: [(pair[0], [pair[1], pair[1]])]),
    mutation(*JUDGED)(lambda rng, pair: [(pair[0], JsonObject([("value", pair[1])]))]),
    mutation("method", "url", "type")(
        lambda rng, pair: [(pair[0], rng.choice((1, True, 1.5, [])))]
    ),
    mutation("url", "method")(
        lambda rng, pair: [
            pair,
            (f"_{pair[0]}", JsonObject([("extension", [JsonObject([("url", "u")])])])),
        ]
    ),
    mutation("request", "method", "entry")(lambda rng, pair: [pair, ("modifierExtension", [])]),
    mutation("request", "method")(
        lambda rng, pair: [pair, ("extension", [JsonObject([("url", "u"), ("valueCode", "x")])])]
    ),
    mutation("request", "entry")(lambda rng, pair: [pair, ("implicitRules", "urn:x")]),
    mutation("request", "entry")(lambda rng, pair: [pair, ("id", "1")]),
    mutation("entry")(lambda rng, pair: [(pair[0], [*pair[1], "text"])]),
    mutation("entry")(lambda rng, pair: [(pair[0], [*pair[1], JsonObject()])]),
    mutation("entry")(lambda rng, pair: [(pair[0], [*pair[1], None])]),
    mutation("entry")(lambda rng, pair: [(pair[0], [pair[1]])]),
    mutation("entry")(lambda rng, pair: [pair, ("_entry", pair[1])]),
    mutation("entry")(
        lambda rng, pair: [pair, ("Foo", JsonObject([("resourceType", "Foo"), pair]))]
    ),
    mutation("request")(lambda rng, pair: [(pair[0], b"NaN"), pair]),
    mutation("resource")(
        lambda rng, pair: [pair, ("resource", JsonObject([("resourceType", "Group")]))]
    ),
    mutation("resource")(lambda rng, pair: [(pair[0], JsonObject())]),
    mutation("resource")(
        lambda rng, pair: [(pair[0], JsonObject([("resourcetype", "Group"), *pair[1]]))]
    ),
    mutation("resource")(lambda rng, pair: [(pair[0], "Patient")]),
)
Spell = Callable[[random.Random, bytes], bytes]


def replacement(old: bytes, *new: bytes) -> Spell:
    """Return a mutation that replaces the first or the last occurrence of octets."""

    def spell(rng: random.Random, body: bytes) -> bytes:
        if rng.random() < 0.5:
            return body.replace(old, rng.choice(new), 1)
        return rng.choice(new).join(body.rsplit(old, 1))

    return spell


BOTH: tuple[Spell, ...] = (
    lambda rng, body: b"\xef\xbb\xbf" + body,
    lambda rng, body: body.decode("utf-8", "replace").encode("utf-16"),
    lambda rng, body: body.decode("utf-8", "replace").encode("utf-16-le"),
    lambda rng, body: body.decode("utf-8", "replace").encode("utf-32"),
    lambda rng, body: body + b" \r\n\t",
    lambda rng, body: body + b"\0",
    lambda rng, body: body + body,
    lambda rng, body: body[: rng.randint(0, len(body))],
    lambda rng, body: b"",
    lambda rng, body: b" \n" + body,
    lambda rng, body: body.replace(b"Patient", b"Pat\xffient"),
)
JSON_SPELLINGS: tuple[Spell, ...] = (
    *BOTH,
    replacement(b"{", b"{/*x*/", b'{/*"method":"DELETE",*/', b"{//\n", b"{#\n", b"{\x01", b"{,"),
    replacement(b"}", b",}", b',"x":NaN}', b',"x":-Infinity}', b',"x":01}', b',"x":1e999}', b";}"),
    replacement(b'"', b"'", b"", b'\\"'),
    replacement(
        b'"method"', b'"m\\u0065thod"', b"method", b"'method'", b'"method\\u0000"', b'"MeThOd"'
    ),
    replacement(b'"url"', b'"\\u0075rl"', b'"u\\rl"', b'"URL"', b'"url" '),
    replacement(b'"resourceType"', b'"resourcetype"', b'"\\u0072esourceType"', b'"resource-type"'),
    replacement(b'"GET"', b'"G\\u0045T"', b'"G\\ET"', b'"\\ud800"', b'"GET\\u0000"', b'"G\tET"'),
    replacement(b"/", b"\\/", b"\\u002f", b"\\u005c"),
    replacement(b",", b",,", b" , ", b"\xc2\xa0,", b"\xe2\x80\xa8,", b""),
    lambda rng, body: b"[" + body + b"]",
    lambda rng, body: body + b"// x",
    lambda rng, body: body.replace(b"{", b'{"x":{"x":1,"x":2},', 1),
    lambda rng, body: body.replace(b'"text":{', b'"text":{"entry":[],"method":"DELETE",'),
    lambda rng, body: body.replace(b'"text":{', b'"text":{"a":1,"a":2,'),
    lambda rng, body: body.replace(b'"text":{', b'"x":%s,"text":{' % (b"[" * 150 + b"]" * 150)),
    lambda rng, body: b'<Bundle xmlns="http://hl7.org/fhir"><type value="batch"/></Bundle>',
)
DOCTYPE = b'<!DOCTYPE Bundle [<!ENTITY e "DELETE">]>'
XML_SPELLINGS: tuple[Spell, ...] = (
    *BOTH,
    lambda rng, body: DOCTYPE + body.removeprefix(b'<?xml version="1.0"?>'),
    lambda rng, body: body.replace(b'"GET"', b'"&e;"'),
    lambda rng, body: body.replace(b'"GET"', b'"&#71;E&#x54;"'),
    lambda rng, body: body.replace(b"http://hl7.org/fhir", b"http://hl7.org/fhir/"),
    lambda rng, body: body.replace(b' xmlns="http://hl7.org/fhir"', b""),
    lambda rng, body: (
        body.replace(b"<", b"<f:")
        .replace(b"<f:/", b"</f:")
        .replace(b"<f:?", b"<?")
        .replace(b"xmlns=", b"xmlns:f=")
    ),
    lambda rng, body: body.replace(b"<request>", b'<x:request xmlns:x="u"/><request>', 1),
    lambda rng, body: body.replace(
        b"<request>", b'<x:request xmlns:x="http://www.w3.org/1999/xhtml"/><request>', 1
    ),
    lambda rng, body: body.replace(
        b"<entry>", b'<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="x"/><entry>', 1
    ),
    replacement(
        b"<request>", b'<request method="DELETE">', b'<request id="1">', b'<request value="1">'
    ),
    replacement(
        b"<entry>",
        b'<entry value="1">',
        b'<entry xml:base="x">',
        b"<Entry/><entry>",
        b"<entry/><entry>",
    ),
    replacement(
        b"<resource>", b"<resource><Foo/>", b"<resource><id value='1'/>", b'<resource id="1">'
    ),
    replacement(b"</resource>", b"<Foo/></resource>", b"</resource><resource/>", b"x</resource>"),
    replacement(b"</request>", b"<Foo><method value='DELETE'/></Foo></request>", b"text</request>"),
    replacement(
        b"</Bundle>", b"<Foo><entry/></Foo></Bundle>", b"<!-- x --></Bundle>", b"<x/></Bundle>"
    ),
    replacement(
        b"<method ", b"<method x:value='DELETE' xmlns:x='u' ", b"<Method ", b"<method id='1' "
    ),
    lambda rng, body: re.sub(rb"<request>(.*?)<url value=(.*?)/>", rb"<request url=\2>\1", body),
    replacement(
        b"<url ", b"<url value='Practitioner/1'/><url ", b"<!-- x --><url ", b"<?x y?><url "
    ),
    replacement(b"<id value", b'<div xmlns="http://www.w3.org/1999/xhtml"><p>x</p></div><id value'),
    replacement(
        b"<id value", b"<contained><Group/></contained><id value", b"<extension url='u'/><id value"
    ),
    lambda rng, body: (
        b'<?xml version="1.0" encoding="%s"?>' % rng.choice(ENCODINGS)
        + body.removeprefix(b'<?xml version="1.0"?>')
    ),
    lambda rng, body: body.replace(b'version="1.0"', b'version="1.1"'),
    lambda rng, body: body.replace(
        b"<Bundle ",
        b'<Bundle xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:schemaLocation="x" ',
    ),
    lambda rng, body: b'{"resourceType":"Bundle","type":"batch"}',
)
ENCODINGS = (b"UTF-8", b"utf-16", b"iso-8859-1", b"cp037", b"us-ascii", b"utf-7", b"nonsense")
