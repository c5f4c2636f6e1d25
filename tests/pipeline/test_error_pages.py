"""Local errors as HTML pages for browsers; other clients get an OperationOutcome."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import pytest

from tests.doubles.wire import Response, Wire, fetch, get, post
from tests.pipeline.testbed import Testbed

CHROMIUM = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,"
    "*/*;q=0.8,application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
JAVA = "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"
BROWSER = f"Accept: {CHROMIUM}"
NAVIGATES = "Sec-Fetch-Mode: navigate"
PAGE, JSON, XML = "text/html", "application/fhir+json", "application/fhir+xml"

# Query, Accept and further fields, and the format of the response.
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


def parse_page(page: Response) -> _Texts:
    texts = _Texts()
    texts.feed(page.body.decode())
    return texts


def fields(accept: str | None, *others: str) -> tuple[str, ...]:
    return others if accept is None else (f"Accept: {accept}", *others)


@pytest.mark.parametrize(("query", "accept", "others", "form"), VARIANTS)
async def test_the_format_of_an_error(
    testbed: Testbed, query: str, accept: str | None, others: tuple[str, ...], form: str
) -> None:
    """`_format`, then Sec-Fetch fields and the beginning of Accept select HTML, XML or JSON."""
    gateway = await testbed.start()
    response = await fetch(gateway.address, get(f"/nowhere{query}", *fields(accept, *others)))
    assert (response.status, response.reason) == (404, "unknown-path")
    assert response.header("content-type") == f"{form}; charset=utf-8"
    assert response.header("cache-control") == "no-store"


@pytest.mark.parametrize(
    ("language", "words"),
    [
        ("en", "Check the base address"),
        ("ru-RU,ru;q=0.9,en;q=0.8", "базовый адрес"),
        ("uz", "manzil"),
    ],
)
async def test_page_has_content_of_the_outcome(testbed: Testbed, language: str, words: str) -> None:
    """Text, reason, diagnostics and request id, in the user's language."""
    gateway = await testbed.start()
    same = (f"Accept-Language: {language}", "X-Request-Id: a-1")
    told = (await fetch(gateway.address, get("/nowhere", *same))).json()
    page = await fetch(gateway.address, get("/nowhere", *fields(FIREFOX, *same)))
    found = parse_page(page)
    issue = told["issue"][0]
    assert words in issue["details"]["text"]
    for said in (issue["details"]["text"], issue["diagnostics"], "unknown-path", "a-1"):
        assert said in found.text
    assert found.language == told["language"] == page.header("content-language")
    assert page.header("x-request-id") == "a-1"


async def test_a_page_runs_nothing_and_loads_nothing(testbed: Testbed) -> None:
    """No script, form or frame; its one style is allowed by hash; it cannot be framed."""
    gateway = await testbed.start()
    page = await fetch(gateway.address, get("/nowhere", *fields(CHROMIUM)))
    assert {"html", "head", "meta", "title", "style", "body", "h1", "p"} <= set(
        parse_page(page).elements
    )
    assert not {"script", "form", "iframe", "img", "link", "object"} & set(
        parse_page(page).elements
    )
    policy = page.header("content-security-policy") or ""
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "style-src 'sha256-" in policy
    assert "unsafe" not in policy
    assert page.header("x-content-type-options") == "nosniff"
    assert page.header("referrer-policy") == "no-referrer"
    assert 'name="viewport"' in page.body.decode()


async def test_request_data_is_not_on_the_page(testbed: Testbed) -> None:
    """Markup in target, fields and request id is not reflected."""
    gateway = await testbed.start()
    mark = "<b>planted</b>"
    target = "/nowhere?a=%3Cb%3Eplanted&b='\"planted"
    page = await fetch(gateway.address, get(target, *fields(FIREFOX, f"X-Request-Id: {mark}")))
    assert b"planted" not in page.body
    assert page.header("content-type") == "text/html; charset=utf-8"


@pytest.mark.parametrize(
    ("request_", "status", "reason", "field"),
    [
        (get("/fhir/Patient/1", BROWSER, method="TRACE"), 405, "method-not-allowed", "allow"),
        (post("/fhir/Patient", b"", BROWSER, "Via: 1.1 dhp-gateway"), 508, "loop", None),
        (get("/fhir/%ff", BROWSER), 400, "bad-request", None),
        (
            get("/fhir/Patient/1", BROWSER, "X-Api-Key: wrong"),
            401,
            "caller-unknown",
            "www-authenticate",
        ),
        (get("http://elsewhere.example/fhir/Patient/1", BROWSER), 421, "misdirected", None),
        (
            get("/fhir/Patient/1", BROWSER, *["X-Long: " + "x" * 7_000] * 10),
            431,
            "header-too-large",
            None,
        ),
        (
            get("/fhir/Patient/1", BROWSER, "X-Api-Key: a-key"),
            503,
            "upstream-unreachable",
            "retry-after",
        ),
    ],
)
async def test_any_error_of_a_navigation_is_a_page(
    testbed: Testbed, request_: bytes, status: int, reason: str, field: str | None
) -> None:
    """With the status, reason and fields that another client gets."""
    gateway = await testbed.start(
        platform_url="http://127.0.0.1:1/fhir", callers=[{"name": "lab", "api_key": "a-key"}]
    )
    page = await fetch(gateway.address, request_)
    assert (page.status, page.reason) == (status, reason)
    assert page.header("content-type") == "text/html; charset=utf-8"
    assert reason in parse_page(page).text
    assert field is None or page.header(field)


async def test_a_head_gets_the_fields_of_the_page(testbed: Testbed) -> None:
    """The page's length and no body; the connection stays open."""
    gateway = await testbed.start()
    async with await Wire.open(gateway.address) as wire:
        same = fields(FIREFOX, "X-Request-Id: a-1")
        page = await wire.fetch(get("/nowhere", *same))
        head = await wire.fetch(get("/nowhere", *same, method="HEAD"), head=True)
        again = await wire.fetch(get("/nowhere", *same))
    assert int(head.header("content-length") or 0) == len(page.body) == len(again.body)
    assert head.header("content-type") == "text/html; charset=utf-8"


async def test_http_1_0_gets_the_page(testbed: Testbed) -> None:
    """With its length; the connection closes."""
    gateway = await testbed.start()
    async with await Wire.open(gateway.address) as wire:
        page = await wire.fetch(f"GET /nowhere HTTP/1.0\r\nAccept: {FIREFOX}\r\n\r\n".encode())
        assert int(page.header("content-length") or 0) == len(page.body)
        assert (page.status, page.header("connection")) == (404, "close")
        assert await wire.at_end()


async def test_the_error_of_an_unparsable_request_is_json(testbed: Testbed) -> None:
    gateway = await testbed.start()
    broken = f"GET /fhir/Patient HTTP/1.1\r\nHost: a\r\nAccept: {FIREFOX}\r\nBroken\r\n\r\n"
    response = await fetch(gateway.address, broken.encode())
    assert response.status == 400
    assert json.loads(response.body)["resourceType"] == "OperationOutcome"
