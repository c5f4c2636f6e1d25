"""Random bodies: resources with links, and with text that resembles links, in any encoding."""

from __future__ import annotations

import base64
import json
import random
import re
from typing import Any
from xml.sax.saxutils import quoteattr

BASE = "https://playground.dhp.uz/fhir"
ALIAS = "http://hapi.internal:8090/r5"
GATEWAY = "http://his.local:8080/fhir"
_BUNDLES = (
    *("searchset", "searchset", "searchset", "history", "transaction", "transaction-response"),
    *("batch", "collection", "message", "document", "subscription-notification", None),
)
_RESOURCES = (
    *("Patient", "Observation", "Encounter", "PlanDefinition", "DetectedIssue", "Provenance"),
    *("Contract", "CapabilityStatement", "ValueSet", "OperationOutcome", "DocumentReference"),
    *("RiskAssessment", "Basic", "Bundle", "Parameters", "List", "Subscription", "Binary", None),
)


def spelled_out(body: bytes, *words: str) -> bytes:
    """Return JSON in which every letter of these words is an escape, in hexadecimal of either case.

    Without words, the letters of every string are.
    """

    def spelled(string: re.Match[str]) -> str:
        text = string[1]
        if "\\" in text or (words and text not in words):
            return string[0]
        forms = ("\\u%04x", "\\u%04X")
        return f'"{"".join(forms[at % 2] % ord(each) for at, each in enumerate(text))}"'

    return re.sub(r'"((?:[^"\\]|\\.)*)"', spelled, body.decode()).encode()


class Bodies:
    """A source of bodies whose URLs are under one of `bases`, or nearly so."""

    def __init__(self, seed: int, bases: tuple[str, ...]) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - no secret
        self._bases = bases
        self.chance = self._dice.random

    def body(self) -> Any:
        """Return a value to be written as JSON."""
        if self._is(0.06):
            return [self.resource(2) for _ in range(2)]
        if self._is(0.05):
            parts = [{"type": "Patient", "url": self.url()}]
            names = self._dice.sample(["output", "error", "deleted", "link", "request"], 3)
            return {name: self.url() if name == "request" else parts for name in names}
        if self._is(0.05):
            return self.arguments()
        return self.bundle(2) if self._is(0.6) else self.resource(2)

    def arguments(self) -> dict[str, Any]:
        """Return the body of a request to `$graphql`."""
        document = f'{{List(subject: "{self.url()}", _filter: "a eq {self.url()}"){{id}}}}'
        variables: Any = {"a": self.url(), "b": [self.url(), 1], "c": {"subject": self.reference()}}
        if self._is(0.2):
            variables = json.dumps(variables)
        return {"query": document, "variables": variables, "operationName": self.url()}

    def search(self) -> str:
        """Return a search with URLs among its values."""
        url, other = self.url(), self.url()
        if self._is(0.3):
            url = url.replace(":", "%3A").replace("/", "%2F")
        text = self._one(["a eq %s", "(a%%20eq%%20%s)", 'a eq "%s"', "%s,x", "%s|1", "a+co+%s"])
        name = self._one(
            ["_filter", "_filter", "%5Ffilter", "criteria", "query", "note", "subject"]
        )
        path = self._one(["Observation", "Patient/1/$graphql", "%24graphql", other])
        return self._one(
            [f"{path}?x=y&{name}={text % url}", f"{path}?{name}={text % url}&a={other}"]
        )

    def patch(self) -> dict[str, Any]:
        """Return an entry that may hold a JSON Patch."""
        operations = [
            {"op": "add", "path": "/subject", "value": self.reference()},
            {"op": "add", "path": "/basedOn/-", "value": {"reference": self.url(), "display": "x"}},
            {"op": "replace", "value": self.url(), "path": "/focus/0/reference"},
            {"op": "replace", "value": self.url(), "path": "/note/0/text"},
            {"op": "add", "path": "/photo/1", "value": {"url": self.url()}},
            {"op": "test", "path": "/active", "value": True},
        ]
        body = json.dumps(self._dice.sample(operations, 2))
        if self._is(0.2):
            body = body.replace("/", "\\/")
        if self._is(0.1):
            body = self.url()
        data = base64.b64encode(body.encode()).decode()
        kind = "Binary" if self._is(0.8) else "Basic"
        return {
            "resource": {"resourceType": kind, "contentType": "a", "data": data},
            "request": {"method": "PATCH" if self._is(0.7) else "POST", "url": self.url()},
        }

    def bundle(self, depth: int) -> dict[str, Any]:
        """Return a Bundle, sometimes signed."""
        bundle: dict[str, Any] = {"resourceType": "Bundle", "type": self._one(_BUNDLES)}
        if self._is(0.7):
            bundle["link"] = [
                {"relation": relation, "url": self.url()} for relation in ("self", "next")
            ]
        bundle["entry"] = [self.entry(depth) for _ in range(self._dice.randint(0, 4))]
        if self._is(0.06):
            bundle["signature"] = {"who": self.reference()}
        if self._is(0.05):
            bundle["issues"] = self.resource(0)
        return {name: value for name, value in bundle.items() if value is not None}

    def entry(self, depth: int) -> dict[str, Any]:
        """Return an entry with some of its elements."""
        if self._is(0.1):
            return self.patch()
        query = self._one(["", "?a=b&subject=", "?identifier=x|", f"?n={self._one('яa%')}&a="])
        request = {"method": "PUT", "url": self._one(["Patient/1", "Patient" + query]) + self.url()}
        urls = [request["url"], "Patient/1", self.url(), self.url() + query, self.search()]
        request["url"] = self._one(urls)
        if self._is(0.5):
            url = self.url()
            url = url.replace(":", "%3A").replace("/", "%2F") if self._is(0.3) else url
            request["ifNoneExist"] = self._one([url, "a=" + url, f"x&a={url},{url}"])
        members: dict[str, Any] = {
            "fullUrl": self.url(),
            "resource": self.resource(depth),
            "search": {"mode": "match"},
            "link": [{"relation": "self", "url": self.url()}],
            "request": request,
            "response": {"status": "200", "location": self.url(), "outcome": self.resource(0)},
        }
        chosen = ["fullUrl", "resource"] if self._is(0.5) else [*members]
        return {name: members[name] for name in chosen if self._is(0.8)}

    def resource(self, depth: int) -> dict[str, Any]:
        """Return a resource with elements of many types."""
        kind = self._one(_RESOURCES) if self._is(0.5) else "Patient"
        if depth and kind == "Bundle":
            return self.bundle(depth - 1)
        members: dict[str, Any] = {"resourceType": kind} if kind else {}
        for _ in range(self._dice.randint(0, 5)):
            name, value = self._element(depth)
            members[name] = value
        return members

    def _element(self, depth: int) -> tuple[str, Any]:
        reference, url = self.reference(), self.url()
        makers: list[tuple[str, Any]] = [
            ("subject", reference),
            ("performer", [reference, self.reference()]),
            ("diagnosis", [{"condition": [{"reference": self.reference()}]}]),
            ("condition", reference),
            ("action", [{"condition": [{"expression": reference}]}]),
            ("agent", [{"who": reference, "networkUri": url, "policy": [url]}]),
            ("extension", [{"url": url, "valueReference": reference}, {"url": "x"}]),
            ("extension", [{"url": "x", "valueExpression": reference}]),
            ("extension", [{"url": "x", "valueAttachment": {"url": url}}, {"valueUri": url}]),
            ("photo", [{"contentType": "a", "url": url}, {"url": self.url()}]),
            ("content", [{"attachment": {"url": url, "title": 'a "b\\'}}]),
            ("meta", {"profile": [url], "source": url, "tag": [{"system": url}]}),
            ("identifier", [{"system": url, "value": url}]),
            ("text", {"div": f"<div>{url}</div>"}),
            ("note", [{"text": self._one(["see " + url, f'"{url}"\n\\', "я{[", f"{url} {url}"])}]),
            ("url", url),
            ("criteria", self.search()),
            ("criteria", self.search()),
            ("criteria", url),
            ("filterBy", [{"filterParameter": "a", "value": self._one([url, f"{url},{url}"])}]),
            ("filterBy", [{"value": self._one([f"a eq {url}", url.replace(":", "%3A")])}]),
            ("data", self.patch()["resource"]["data"]),
            ("reference", url),
            ("implementation", {"url": url}),
            ("expansion", {"next": url, "contains": [{"system": url}]}),
            ("criteria", reference),
            ("statement", [reference]),
            ("item", [{"item": reference}, {"item": {"reference": [url]}}]),
            ("policyBasis", reference),
            ("location", url),
            ("link", [{"other": reference, "type": "seealso"}]),
            ("valueUrl", url),
            ("value", [[1, {"subject": reference}], 1.50, None, True, -0.0, 1e20]),
        ]
        if self._is(0.15):
            return self._one(
                [
                    ("signature", [{"who": reference}]),
                    ("signer", [{"signature": [{"who": reference}]}]),
                    ("extension", [{"url": "x", "valueSignature": {"who": reference}}]),
                    ("parameter", [self._parameter(depth)]),
                    ("contained", [self.resource(0)]),
                    ("type", self._one(["document", "searchset", "document"])),
                ]
            )
        return self._one(makers)

    def _parameter(self, depth: int) -> dict[str, Any]:
        kind = self._one(["valueUri", "valueUrl", "valueString", "valueReference", "resource"])
        value = {"valueReference": self.reference(), "resource": self.resource(0)}
        member = {"name": "a", kind: value.get(kind, self.url())}
        return {"name": "b", "part": [member]} if self._is(0.5) else member

    def reference(self) -> dict[str, Any]:
        before = {"display": self._one(["x", 'a "b" {', self.url()])} if self._is(0.2) else {}
        after = {"type": "Patient"} if self._is(0.2) else {}
        return {**before, "reference": self.url(), **after}

    def url(self) -> str:
        """Return a URL, mostly under one of the bases."""
        if self._is(0.2):
            return self._one(["Patient/1", "urn:uuid:5d0c6f0a", "https://dhp.uz/fhir/x", ""])
        base = self._one(self._bases)
        if self._is(0.15):
            host = base.split("/")[2]
            base = self._one(
                [
                    base.replace(host, host.upper()),
                    base.replace("http", "HTTP"),
                    base.replace("https:", "http:"),
                    base.replace(host, host + ":443"),
                    base.replace(host, host + ":"),
                    base + "X",
                    base.replace(host, host + ".evil"),
                    base.replace("//", "//a@"),
                ]
            )
        rest = self._one(["/Patient/1", "/Observation/a-1.b/_history/2", "/Patient/a_1"])
        return base + (self._one(_RESTS) if self._is(0.3) else rest)

    def json(self, value: Any) -> bytes:
        """Return the value as JSON in a random style."""
        style = {"colon": self._one([":", ": ", " : ", ":\n"]), "comma": self._one([",", ", "])}
        style["blank"] = self._one(["", "", "\n  ", "\r\n\t", " "])
        text = self._written(value, style, shuffled=self._is(0.5), ascii=self._is(0.5))
        if self._is(0.25):
            text = text.replace("/", self._one(["\\/", "\\/", "\\u002f", "\\u002F"]))
        return text.encode()

    def _written(self, value: Any, style: dict[str, str], *, shuffled: bool, ascii: bool) -> str:
        how = {"shuffled": shuffled, "ascii": ascii}
        comma = style["comma"] + style["blank"]
        if isinstance(value, list):
            items = comma.join(self._written(each, style, **how) for each in value)
            return f"[{style['blank']}{items}{style['blank']}]"
        if isinstance(value, dict):
            names = [*value]
            if shuffled:
                self._dice.shuffle(names)
            members = comma.join(
                self._written(name, style, **how)
                + style["colon"]
                + self._written(value[name], style, **how)
                for name in names
            )
            return f"{{{style['blank']}{members}{style['blank']}}}"
        if isinstance(value, str):
            text = json.dumps(value, ensure_ascii=ascii)
            if len(text) > 2 and "\\" not in text and self._is(0.01):
                at = self._dice.randint(1, len(text) - 2)
                text = f"{text[:at]}\\u{ord(text[at]):04x}{text[at + 1 :]}"
            return text
        return json.dumps(value)

    def xml(self, value: dict[str, Any]) -> bytes:
        """Return a resource as XML in a random style."""
        blank = self._one(["", "", "\n  ", "\t"])
        root = self._xml_resource(value, blank, ' xmlns="http://hl7.org/fhir"')
        lead = self._one(["", '<?xml version="1.0" encoding="UTF-8"?>', "<!-- a -->"])
        return (lead + root).encode()

    def _xml_resource(self, value: dict[str, Any], blank: str, more: str = "") -> str:
        kind = value.get("resourceType", "Basic")
        inner = {name: each for name, each in value.items() if name != "resourceType"}
        return f"<{kind}{more}>{self._xml_members(inner, blank)}</{kind}>"

    def _xml_members(self, members: dict[str, Any], blank: str) -> str:
        names = [*members]
        if self._is(0.3):
            self._dice.shuffle(names)
        return "".join(
            blank + self._xml(name, each, blank)
            for name in names
            for each in (members[name] if isinstance(members[name], list) else [members[name]])
        )

    def _xml(self, name: str, value: Any, blank: str) -> str:
        if isinstance(value, dict) and name in {"resource", "contained", "outcome", "issues"}:
            return f"<{name}>{self._xml_resource(value, blank)}</{name}>"
        if isinstance(value, dict):
            return f"<{name}>{self._xml_members(value, blank)}</{name}>"
        if isinstance(value, list):
            return ""
        if name == "div":
            return (
                f'<div xmlns="http://www.w3.org/1999/xhtml"><a href={quoteattr(str(value))}/></div>'
            )
        text = quoteattr(str(value))
        if self._is(0.03):
            text = text.replace("/", self._one(["&#47;", "&#x2F;"]))
        return self._one([f"<{name} value={text}/>", f"<{name} id='a' value = {text} ></{name}>"])

    def cuts(self, length: int) -> list[int]:
        if self._is(0.1):
            return [*range(length)]
        return sorted(self._dice.randint(0, length) for _ in range(self._dice.randint(1, 6)))

    def _is(self, chance: float) -> bool:
        return self._dice.random() < chance

    def _one(self, choices: Any) -> Any:
        return self._dice.choice(choices)


_RESTS = (
    *("", "/", "?_page=2", "#a", "/metadata", "/Patient?name=a%20b&x=1", "/../admin", "/Patient/."),
    *("/Patient/%2e%2e/a", "/Patient/" + "a" * 65, "/Patient/a b", "\\a", "/x/y\\z", "/Patient/я"),
    *("/Patient/1#part", "/a_1", "/Patient/.1", '/Patient/"', "/Patient?a=x\\y"),
)
