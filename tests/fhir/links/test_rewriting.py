"""Which URLs are mapped, in fields and queries, and which bodies are rewritten at all."""

from __future__ import annotations

import tracemalloc

import pytest

from gateway.fhir.links.link_map import LinkMap, replace_in_query
from gateway.fhir.links.rewriting import (
    is_known_unchanged,
    is_rewritten,
    rewrite_header,
    rewrite_request_header,
    rewriter_for,
)
from tests.doubles.growth import NEARLY_LINEAR, growth

PLATFORM = "https://playground.dhp.uz/fhir"
GATEWAY = "http://127.0.0.1:8080/fhir"
ALIASES = ("http://hapi.internal:8090/r5",)
LINKS = LinkMap(PLATFORM, GATEWAY, ALIASES)
PRODUCTION = LinkMap("https://fhir.dhp.uz", "http://gw.clinic.uz:8080/fhir")


def _returned(name: str, value: str, links: LinkMap) -> str:
    """Return a response field's value for the caller."""
    return rewrite_header(links, name.lower().encode(), value.encode()).decode()


def _sent(name: str, value: str, links: LinkMap) -> str:
    """Return a request field's value for the platform."""
    return rewrite_request_header(links, name.lower().encode(), value.encode()).decode()


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (PLATFORM, GATEWAY),
        (f"{PLATFORM}/", f"{GATEWAY}/"),
        (f"{PLATFORM}/Patient/1", f"{GATEWAY}/Patient/1"),
        (f"{PLATFORM}?_page=2", f"{GATEWAY}?_page=2"),
        (f"{PLATFORM}#top", f"{GATEWAY}#top"),
        ("http://playground.dhp.uz/fhir/Patient/1", f"{GATEWAY}/Patient/1"),
        ("HTTPS://PlayGround.DHP.uz/fhir/Patient/1", f"{GATEWAY}/Patient/1"),
        ("https://playground.dhp.uz:443/fhir/Patient/1", f"{GATEWAY}/Patient/1"),
        ("http://playground.dhp.uz:80/fhir/Patient/1", f"{GATEWAY}/Patient/1"),
        ("https://playground.dhp.uz:/fhir/Patient/1", f"{GATEWAY}/Patient/1"),
        ("https://hapi.internal:8090/r5/Patient/1", f"{GATEWAY}/Patient/1"),
        (f"{PLATFORM}/Patient?name=a\\,b&x=../y", f"{GATEWAY}/Patient?name=a\\,b&x=../y"),
        (f"{PLATFORM}/Patient/.1", f"{GATEWAY}/Patient/.1"),
    ],
)
def test_a_url_below_the_platforms_base_is_mapped(url, expected):
    """Scheme, default port and the case of the host do not matter; the rest is unchanged."""
    assert LINKS.to_gateway(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "https://playground.dhp.uz/fhirX/Patient/1",
        "https://playground.dhp.uz/FHIR/Patient/1",
        "https://playground.dhp.uz/",
        "https://dhp.uz/fhir/core/StructureDefinition/x",
        "https://terminology.dhp.uz/fhir/core/CodeSystem/x",
        "https://playground.dhp.uz.evil.example/fhir/Patient/1",
        "https://playground.dhp.uz./fhir/Patient/1",
        "https://pl%61yground.dhp.uz/fhir/Patient/1",
        "https://playground.dhp.uz:8443/fhir/Patient/1",
        "http://playground.dhp.uz:443/fhir/Patient/1",
        "https://user@playground.dhp.uz/fhir/Patient/1",
        "https://playground.dhp.uz@evil.example/fhir/Patient/1",
        "https://playground.dhp.uz/fhir/../admin",
        "https://playground.dhp.uz/fhir/%2E%2e/admin",
        "https://playground.dhp.uz/fhir/./Patient",
        "https://playground.dhp.uz/fhir/..",
        "https://playground.dhp.uz/fhir\\..\\admin",
        "https://playground.dhp.uz\\fhir/Patient/1",
        "https://playground.dhp.uz/fhir/Patient/1 is a text",
        "ftp://playground.dhp.uz/fhir/Patient/1",
        "https:/playground.dhp.uz/fhir",
        "httpſ://playground.dhp.uz/fhir",
        "urn:uuid:9b2f4c1e-0000-4000-8000-000000000099",
        "Patient/1",
        "",
    ],
)
def test_other_urls_are_unchanged(url):
    """Similar hosts and paths, other ports, userinfo, and paths that leave the base."""
    assert LINKS.to_gateway(url) is None


def test_a_base_without_a_path_is_mapped_by_base_and_not_by_host():
    """The production platform has no path while the gateway has one."""
    assert PRODUCTION.to_gateway("https://fhir.dhp.uz/Patient/1") == (
        "http://gw.clinic.uz:8080/fhir/Patient/1"
    )
    assert PRODUCTION.to_platform("http://gw.clinic.uz:8080/fhir/Patient/1") == (
        "https://fhir.dhp.uz/Patient/1"
    )
    assert PRODUCTION.to_platform("http://gw.clinic.uz:8080/auth/login") is None


def test_a_host_with_a_trailing_dot_is_another_host():
    """It is mapped for callers that use it, like an internationalised one in ASCII."""
    for host in ("gw.clinic.uz.", "xn--80apgojn8e.xn--j1amh"):
        links = LinkMap(PLATFORM, f"http://{host}/fhir")
        assert links.to_platform(f"http://{host}/fhir/Patient/1") == f"{PLATFORM}/Patient/1"
        assert links.to_platform("http://gw.clinic.uz/fhir/Patient/1") is None


def test_an_alias_without_a_path_does_not_shadow_the_base():
    """The longest base that covers a URL is replaced."""
    links = LinkMap(PLATFORM, GATEWAY, ("https://playground.dhp.uz",))
    assert links.to_gateway(f"{PLATFORM}/Patient/1") == f"{GATEWAY}/Patient/1"
    assert links.to_gateway("https://playground.dhp.uz/Patient/1") == f"{GATEWAY}/Patient/1"


def test_the_gateway_may_have_several_bases():
    """Each caller gets that of its Host."""
    other = LinkMap(PLATFORM, "https://[::1]:8443/", ALIASES)
    assert other.to_gateway(f"{PLATFORM}/Patient/1") == "https://[::1]:8443/Patient/1"
    assert other.to_gateway("http://hapi.internal:8090/r5/Patient/1") is not None
    assert other.to_platform("https://[::1]:8443/Patient/1") == f"{PLATFORM}/Patient/1"
    assert LINKS.to_gateway(PLATFORM) == GATEWAY


@pytest.mark.parametrize(
    "base",
    [
        "",
        "/fhir",
        "ftp://x/fhir",
        "http://a@b/fhir",
        "http://x/fhir?a=b",
        'http://x/"',
        "http://x/../a",
    ],
)
def test_an_invalid_base_is_rejected(base):
    """A caller chooses Host."""
    with pytest.raises(ValueError, match="base URL"):
        LinkMap(PLATFORM, base)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (f"{PLATFORM}/Patient/1/_history/1", f"{GATEWAY}/Patient/1/_history/1"),
        ("//playground.dhp.uz/fhir/Patient/1", f"{GATEWAY}/Patient/1"),
        ("Patient/1/_history/1", "Patient/1/_history/1"),
        ("https://elsewhere.example/x", "https://elsewhere.example/x"),
        ("/fhirX/Patient/1", "/fhirX/Patient/1"),
        ("/fhir/../Patient/1", "/fhir/../Patient/1"),
    ],
)
@pytest.mark.parametrize("name", ["Location", "content-location"])
def test_locations_are_mapped(name, value, expected):
    """Absolute ones below the base; others are unchanged."""
    assert _returned(name, value, LINKS) == expected


def test_a_root_relative_location_gets_the_gateways_prefix():
    """Whether the platform's base has a path or not."""
    below = LinkMap(PLATFORM, "http://127.0.0.1:8080/gw")
    assert _returned("Location", "/fhir/Patient/1", below) == "/gw/Patient/1"
    assert _returned("Location", "/Patient/1", PRODUCTION) == "/fhir/Patient/1"


def test_targets_and_anchors_of_link_fields_are_mapped():
    """Nothing in quoted text."""
    value = (
        f'<{PLATFORM}/Patient?_page=2,3>; rel="next"; title="see <{PLATFORM}/x>, \\"<{PLATFORM}>",'
        f' <https://dhp.uz/fhir>;rel=help;anchor="{PLATFORM}/Patient/1", </fhir/a>; rel=self'
    )
    assert _returned("Link", value, LINKS) == (
        f'<{GATEWAY}/Patient?_page=2,3>; rel="next"; title="see <{PLATFORM}/x>, \\"<{PLATFORM}>",'
        f' <https://dhp.uz/fhir>;rel=help;anchor="{GATEWAY}/Patient/1", </fhir/a>; rel=self'
    )


@pytest.mark.parametrize("unit", ['\\"', '"\\', ';anchor="', "<", '<">', "; ", ";anchor"])
def test_the_work_for_a_link_field_is_linear(unit):
    assert growth(lambda size: _returned("Link", unit * size, LINKS), 1000) < NEARLY_LINEAR


def test_an_open_quote_in_a_link_field_reaches_to_its_end():
    value = f'<{PLATFORM}/a>; title="see <{PLATFORM}/x>'
    assert _returned("Link", value, LINKS) == f'<{GATEWAY}/a>; title="see <{PLATFORM}/x>'


def test_bases_made_of_host_are_not_cached():
    """Memory does not grow with ever new hosts."""
    LinkMap(PLATFORM, GATEWAY)
    tracemalloc.start()
    for number in range(300):
        LinkMap(PLATFORM, f"http://{number:05}{'h' * 5000}/fhir", ALIASES)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 200_000


def test_other_fields_are_unchanged():
    """An ETag or a text may contain a URL."""
    assert _returned("ETag", f'"{PLATFORM}"', LINKS) == f'"{PLATFORM}"'
    assert _sent("X-Note", GATEWAY, LINKS) == GATEWAY


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (f"subject={GATEWAY}/Patient/1", f"subject={PLATFORM}/Patient/1"),
        (
            "subject=http%3A%2F%2F127.0.0.1%3A8080%2Ffhir%2FPatient%2F1&_count=2",
            "subject=https%3A%2F%2Fplayground.dhp.uz%2Ffhir%2FPatient%2F1&_count=2",
        ),
        (
            "subject=http%3a//127.0.0.1:8080/fhir/Patient/1",
            "subject=https%3a//playground.dhp.uz/fhir/Patient/1",
        ),
        (
            f"a={GATEWAY}/Patient/1,{GATEWAY}/Patient/2%2c{GATEWAY}/Patient/3",
            f"a={PLATFORM}/Patient/1,{PLATFORM}/Patient/2%2c{PLATFORM}/Patient/3",
        ),
        ("subject=http://12%37.0.0.1:8080/fhir/Patient/1", f"subject={PLATFORM}/Patient/1"),
        ("subject=http://127%2e0.0.1:8080/fhir/Patient/1", f"subject={PLATFORM}/Patient/1"),
    ],
)
def test_gateway_urls_in_a_query_are_mapped(query, expected):
    """Encoded as they were."""
    assert replace_in_query(query, LINKS.requests) == expected


def test_an_ipv6_address_is_found_in_a_query() -> None:
    """Its colons may be encoded."""
    links = LinkMap(PLATFORM, "http://[::1]:8080/fhir")
    query = "subject=http%3A%2F%2F[%3A%3A1]%3A8080%2Ffhir%2FPatient%2F1"
    assert replace_in_query(query, links.requests) == (
        "subject=https%3A%2F%2Fplayground.dhp.uz%2Ffhir%2FPatient%2F1"
    )


@pytest.mark.parametrize("length", [0, 5000])
@pytest.mark.parametrize("host", ["playground.dhp.uz", "PlayGround.dhp.uz", "hapi.internal:8090"])
def test_a_body_with_a_host_of_the_platform_may_change(host: str, length: int) -> None:
    """In any case of letters; without one it is unchanged."""
    body = b'{"a":"%s","b":"http://%s/"}' % (b"x" * length, host.encode())
    assert not is_known_unchanged(body, "application/fhir+json", LINKS.responses)
    other = body.replace(host.encode(), b"example.org")
    assert is_known_unchanged(other, "application/fhir+json", LINKS.responses)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "name=Ann+B%c3%a9a&&x&=y&_sort=-date%2c_id",
        f"identifier={GATEWAY}/sid|1",
        f"identifier={GATEWAY}/sid%7C1",
        f"note=see {GATEWAY}/Patient/1",
        f"subject={PLATFORM}/Patient/1",
        "subject=http://127.0.0.1:8080/fhirX/1",
        "subject=http://127.0.0.1:9464/fhir/1",
        "subject=http%3A%2F%2F127.0.0.1%3A8080%2Ffhir%2F..%2Fx",
        f"{GATEWAY}/Patient/1",
    ],
)
def test_other_queries_are_unchanged(query):
    """Tokens, texts, other URLs, unusual encodings."""
    assert replace_in_query(query, LINKS.requests) == query


def test_a_lone_surrogate_in_x_provenance_is_no_error():
    text = (
        '{"resourceType":"Bundle","type":"batch","entry":[{"request":{"url":"%s/P?x=\\ud800é"}}]}'
    )
    assert _sent("X-Provenance", text % GATEWAY, LINKS) == text % PLATFORM


@pytest.mark.parametrize(
    "content_type",
    [
        "application/fhir+json",
        "Application/FHIR+JSON; fhirVersion=5.0; charset=UTF-8",
        "application/json",
        "text/json",
        "application/fhir+xml",
        "application/xml; charset=windows-1251",
        "application/fhir+ndjson",
    ],
)
@pytest.mark.parametrize("direction", ["to-gateway", "to-platform"])
def test_fhir_bodies_are_rewritten(content_type, direction):
    """In both directions, whatever the parameters."""
    assert is_rewritten(content_type, direction)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/pdf",
        "application/octet-stream",
        "text/html",
        "image/png",
        "application/fhir+json; charset=utf-16",
        'text/xml; charset="UTF-16LE"',
        "application/xml-patch+xml",
    ],
)
def test_other_bodies_are_not_rewritten(content_type):
    """Nor those in an encoding that does not contain ASCII."""
    assert not is_rewritten(content_type, "to-gateway")
    assert not is_rewritten(content_type, "to-platform")


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_a_search_form_is_mapped_like_a_query(size):
    """In any chunks; a very long field is unchanged."""
    body = f"name=x&subject={GATEWAY}/Patient/1&long={'x' * 70_000}&a={GATEWAY}/Patient/2".encode()
    rewriter = rewriter_for("application/x-www-form-urlencoded", LINKS, "to-platform")
    pieces = [rewriter.feed(body[at : at + size]) for at in range(0, len(body), size)]
    assert b"".join([*pieces, rewriter.finish()]) == (
        body.replace(GATEWAY.encode(), PLATFORM.encode())
    )
    assert rewriter.rewritten == 2
