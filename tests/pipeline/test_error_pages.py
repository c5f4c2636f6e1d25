"""Local errors as pages: what a browser opens as a page is answered with one, programs are not."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from tests.doubles.platform import Platform, outcome
from tests.doubles.wire import Reply, Wire, ask, get
from tests.pipeline.stage import Stage

CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
NAVIGATES = "Sec-Fetch-Mode: navigate"
PAGE, JSON, XML = "text/html", "application/fhir+json", "application/fhir+xml"

# Query, Accept and further fields, and the form of the answer.
VARIANTS: list[tuple[str, str | None, tuple[str, ...], str]] = [
    ("", CHROMIUM, (), PAGE),
    ("", CHROMIUM, (NAVIGATES,), PAGE),
    ("", FIREFOX, (), PAGE),
    ("", "text/html, application/xhtml+xml, image/jxr, */*", (), PAGE),  # Internet Explorer
    ("", "text/html, application/xml;q=0.9, application/xhtml+xml, */*;q=0.1", (), PAGE),  # Opera
    ("", "text/html", (), PAGE),
    ("", "Text/HTML;q=0.5, application/json", (), PAGE),
    ("", "text/html, application/json", (), PAGE),
    ("", "text/html,*/*", (NAVIGATES,), PAGE),
    ("?name=a&_format=", FIREFOX, (), PAGE),
    ("?_format=json", FIREFOX, (NAVIGATES,), JSON),
    ("?_format=application/fhir%2Bjson", CHROMIUM, (), JSON),
    ("?_format=xml", CHROMIUM, (NAVIGATES,), XML),
    # Scripts of pages.
    ("", "*/*", ("Sec-Fetch-Mode: cors",), JSON),
    ("", CHROMIUM, ("Sec-Fetch-Mode: cors",), JSON),
    ("", "text/html, */*; q=0.01", ("X-Requested-With: XMLHttpRequest",), JSON),  # jQuery
    (
        "",
        "image/avif,image/webp,image/svg+xml,image/*,*/*;q=0.8",
        ("Sec-Fetch-Mode: no-cors",),
        JSON,
    ),
    # Programs, with what they send where nothing else is set.
    ("", None, (), JSON),
    ("", "*/*", (), JSON),
    ("", "text/html, */*", (), JSON),  # Indy
    ("", JAVA, (), JSON),
    ("", "text/html, image/gif, image/jpeg, */*; q=0.2", (), JSON),
    ("", "application/json, text/html", (), JSON),
    ("", "application/xhtml+xml, text/html, application/xml;q=0.9, */*;q=0.8", (), JSON),
    ("", "text/htmlx, */*", (), JSON),
    ("", "application/xml;q=0.9, application/json", (), JSON),
    ("", "application/xml;q=0.9, */*;q=0.8", (), XML),
    ("", "application/fhir+xml", (), XML),
    ("", "application/fhir+xml, text/html;q=0.5", (), XML),
]


class _Texts(HTMLParser):
    """Collects the elements, the language and the text of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.language = ""
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if tag == "html":
            self.language = dict(attrs)["lang"] or ""

    def handle_data(self, data: str) -> None:
        self.text += data


def read(page: Reply) -> _Texts:
    """The page's elements, language and text."""
    texts = _Texts()
    texts.feed(page.body.decode())
    return texts


def fields(accept: str | None, *others: str) -> tuple[str, ...]:
    """The field lines of a request that accepts this."""
    return others if accept is None else (f"Accept: {accept}", *others)


@pytest.mark.parametrize(("query", "accept", "others", "form"), VARIANTS)
async def test_the_form_of_an_error(
    stage: Stage, query: str, accept: str | None, others: tuple[str, ...], form: str
) -> None:
    """`_format`, then who asks and the beginning of Accept decide between page, XML and JSON."""
    gateway = await stage.start()
    reply = await ask(gateway.address, get(f"/nowhere{query}", *fields(accept, *others)))
    assert (reply.status, reply.reason) == (404, "unknown-path")
    assert reply.header("content-type") == f"{form}; charset=utf-8"
    assert reply.header("cache-control") == "no-store"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "Check the base address"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "базовый адрес"),
        ("uz", "manzil"),
    ],
)
async def test_a_page_says_what_the_outcome_says(stage: Stage, language: str, words: str) -> None:
    """Text, reason, diagnostics and number are the same, in the person's language."""
    gateway = await stage.start()
    same = (f"Accept-Language: {language}", "X-Request-Id: a-1")
    told = (await ask(gateway.address, get("/nowhere", *same))).json()
    page = await ask(gateway.address, get("/nowhere", *fields(FIREFOX, *same)))
    found = read(page)
    issue = told["issue"][0]
    assert words in issue["details"]["text"]
    for said in (issue["details"]["text"], issue["diagnostics"], "unknown-path", "a-1"):
        assert said in found.text
    assert found.language == told["language"] == page.header("content-language")
    assert page.header("x-request-id") == "a-1"


async def test_a_page_runs_nothing_and_loads_nothing(stage: Stage) -> None:
    """No script, form or frame is in it; its one style is allowed by its hash; nobody frames it."""
    gateway = await stage.start()
    page = await ask(gateway.address, get("/nowhere", *fields(CHROMIUM)))
    assert {"html", "head", "meta", "title", "style", "body", "h1", "p"} <= set(read(page).elements)
    assert not {"script", "form", "iframe", "img", "link", "object"} & set(read(page).elements)
    policy = page.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert page.header("x-content-type-options") == "nosniff"
    assert page.header("referrer-policy") == "no-referrer"
    assert 'name="viewport"' in page.body.decode()


async def test_what_was_asked_is_not_on_the_page(stage: Stage) -> None:
    """Markup in address, fields and request id does not come back."""
    gateway = await stage.start()
    mark = "<b>planted</b>"
    target = "/nowhere?a=%3Cb%3Eplanted&b='\"planted"
    page = await ask(gateway.address, get(target, *fields(FIREFOX, f"X-Request-Id: {mark}")))
    assert b"planted" not in page.body
    assert page.header("content-type") == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("method", "target", "more", "status", "reason", "field"),
    [
        ("TRACE", "/fhir/Patient/1", (), 405, "method-not-allowed", "allow"),
        ("POST", "/fhir/Patient", ("Content-Length: 0", "Via: 1.1 dhp-gateway"), 508, "loop", None),
        ("GET", "/fhir/%ff", (), 400, "bad-request", None),
        (
            "GET",
            "/fhir/Patient/1",
            ("X-Api-Key: wrong",),
            401,
            "caller-unknown",
            "www-authenticate",
        ),
        ("GET", "http://elsewhere.example/fhir/Patient/1", (), 421, "misdirected", None),
        ("GET", "/fhir/Patient/1", ("X-Long: " + "x" * 7_000,) * 10, 431, "header-too-large", None),
        (
            "GET",
            "/fhir/Patient/1",
            ("X-Api-Key: a-key",),
            503,
            "upstream-unreachable",
            "retry-after",
        ),
    ],
)
async def test_any_error_of_a_navigation_is_a_page(
    stage: Stage,
    method: str,
    target: str,
    more: tuple[str, ...],
    status: int,
    reason: str,
    field: str | None,
) -> None:
    """With the status, the reason and the fields that a program gets."""
    gateway = await stage.start(
        platform_url="http://127.0.0.1:1/fhir", callers=[{"name": "lab", "api_key": "a-key"}]
    )
    page = await ask(gateway.address, get(target, *fields(CHROMIUM, *more), method=method))
    assert (page.status, page.reason) == (status, reason)
    assert page.header("content-type") == "text/html; charset=utf-8"
    assert reason in read(page).text
    assert field is None or page.header(field)


async def test_head_gets_the_fields_of_the_page(stage: Stage) -> None:
    """A HEAD has the length of the page and no body, and the connection stays in use."""
    gateway = await stage.start()
    async with await Wire.open(gateway.address) as wire:
        same = fields(FIREFOX, "X-Request-Id: a-1")
        page = await wire.ask(get("/nowhere", *same))
        head = await wire.ask(get("/nowhere", *same, method="HEAD"), head=True)
        again = await wire.ask(get("/nowhere", *same))
    assert int(head.header("content-length") or 0) == len(page.body) == len(again.body)
    assert head.header("content-type") == "text/html; charset=utf-8"


async def test_http_1_0_gets_the_page(stage: Stage) -> None:
    """With its length, and the connection closes."""
    gateway = await stage.start()
    async with await Wire.open(gateway.address) as wire:
        page = await wire.ask(f"GET /nowhere HTTP/1.0\r\nAccept: {FIREFOX}\r\n\r\n".encode())
        assert int(page.header("content-length") or 0) == len(page.body)
        assert (page.status, page.header("connection")) == (404, "close")
        assert await wire.at_end()


async def test_what_could_not_be_parsed_is_json(stage: Stage) -> None:
    """Where no field is known, neither is that a browser asked."""
    gateway = await stage.start()
    broken = f"GET /fhir/Patient HTTP/1.1\r\nHost: a\r\nAccept: {FIREFOX}\r\nBroken\r\n\r\n"
    reply = await ask(gateway.address, broken.encode())
    assert reply.status == 400
    assert json.loads(reply.body)["resourceType"] == "OperationOutcome"


async def test_the_platforms_outcome_is_no_page(stage: Stage, platform: Platform) -> None:
    """A FHIR error of the platform reaches a browser unchanged."""
    platform.answer(outcome(410))
    gateway = await stage.start()
    reply = await ask(gateway.address, get("/fhir/Patient/1", *fields(CHROMIUM)))
    assert (reply.status, reply.reason) == (410, None)
    assert reply.header("content-type") == "application/fhir+json"
