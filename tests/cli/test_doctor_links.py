"""The doctor before a platform that names itself otherwise than the settings do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.test_doctor import Ward
from tests.doubles.platform import Platform, PlatformConnection, fhir, outcome
from tests.doubles.sso import Sso

NAMES = {
    "another host": "http://fhir.internal:{port}/r5",
    "localhost": "http://localhost:{port}/r5",
    "another port": "http://127.0.0.1:1/r5",
    "another scheme and its port": "https://127.0.0.1/r5",
    "a balancer": "https://fhir.clinic.uz/r5",
    "another path": "https://fhir.clinic.uz/baseR5",
    "no path": "https://fhir.clinic.uz",
    "IPv6": "http://[::1]:{port}/r5",
}
KIND = "application/fhir+json"


def statement(url: str | None, *types: str) -> dict[str, Any]:
    """A CapabilityStatement that names the server, and types that can be searched."""
    search = {"interaction": [{"code": "read"}, {"code": "search-type"}]}
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "5.0.0",
        **({} if url is None else {"implementation": {"description": "a server", "url": url}}),
        "rest": [{"resource": [{"type": type_, **search} for type_ in types]}],
    }


def page(
    kind: str, *, link: str, full: str, paging: str = "{link}/{kind}?_page=2"
) -> dict[str, Any]:
    """A searchset whose links have that base."""
    following = paging.format(link=link, kind=kind)
    return {
        "resourceType": "Bundle",
        "type": "searchset",
        "link": [{"relation": "next", "url": following}],
        "entry": [{"fullUrl": f"{full}/{kind}/1", "resource": {"resourceType": kind}}],
    }


class Server:
    """Answers with its statement and a page, or an error in its place."""

    def __init__(self, platform: Platform) -> None:
        self.port = urlsplit(platform.url).port
        self.here = platform.url
        self.statement = statement(self.here, "Patient", "Organization")
        self.page: dict[str, Any] | None = None
        platform.respond(self._answer)

    async def _answer(self, connection: PlatformConnection) -> None:
        wanted = self.statement if connection.request.target.endswith("/metadata") else self.page
        body = outcome(403) if wanted is None else fhir(json.dumps(wanted).encode())
        connection.writer.write(body)
        await connection.writer.drain()


@pytest.fixture
def platform_server(platform: Platform) -> Server:
    """A platform that names itself as the settings do."""
    return Server(platform)


@pytest.fixture
def ward(tmp_path: Path, platform: Platform, sso: Sso) -> Ward:
    """A set-up that works."""
    return Ward(tmp_path, platform, sso)


async def finding(ward: Ward) -> dict[str, str] | None:
    """What the doctor says of the platform's links."""
    found = [each for each in await ward.findings() if each["code"] == "platform-links"]
    return found[0] if found else None


@pytest.mark.parametrize("where", ["link", "full", "both"])
@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_links_under_another_name_fail_with_the_alias(
    ward: Ward, platform_server: Server, name: str, where: str
) -> None:
    """The value is named; once it is set, the links are well."""
    server = platform_server
    alias = name.format(port=server.port)
    link = server.here if where == "full" else alias
    full = server.here if where == "link" else alias
    server.page = page("Organization", link=link, full=full)
    found = await finding(ward)
    assert found is not None
    assert (found["level"], found["key"]) == ("error", "rewrite.aliases")
    assert f'rewrite.aliases: ["{alias}"]' in found["hint"]
    ward.settings["rewrite"] = {"aliases": [alias]}
    found = await finding(ward)
    assert found is not None
    assert found["level"] == "ok"


async def test_a_page_by_a_query_of_the_base_tells_it_too(
    ward: Ward, platform_server: Server
) -> None:
    """As servers write `next` that keep pages for a while."""
    alias = "https://fhir.clinic.uz/r5"
    platform_server.page = page(
        "Organization", link=alias, full=platform_server.here, paging="{link}?_getpages=1"
    )
    found = await finding(ward)
    assert found is not None
    assert f'["{alias}"]' in found["hint"]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_statement_with_another_name_is_a_warning(
    ward: Ward, platform_server: Server, name: str
) -> None:
    """Where links cannot be seen, or are well, the name in the statement is told."""
    server = platform_server
    alias = name.format(port=server.port)
    server.statement = statement(f"{alias}/", "Patient", "Organization")
    for answer in (None, page("Organization", link=server.here, full=server.here)):
        server.page = answer
        found = await finding(ward)
        assert found is not None
        assert found["level"] == "warning"
        assert f'rewrite.aliases: ["{alias}"]' in found["hint"]


async def test_a_platform_that_is_named_rightly_is_well(
    ward: Ward, platform_server: Server
) -> None:
    """By its statement, or by its links, in any spelling of one URL."""
    server = platform_server
    same = server.here.replace("http:", "HTTP:")
    assert (await finding(ward) or {})["level"] == "ok"
    server.statement = statement(None, "Organization")
    server.page = page("Organization", link=same, full="urn:x")
    assert (await finding(ward) or {})["level"] == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"resourceType": "Bundle", "type": "searchset"},
        page("Organization", link=".", full="urn:x"),
        {
            "resourceType": "Bundle",
            "link": 1,
            "entry": [1, {"fullUrl": 2}, {"fullUrl": "https://"}],
        },
        {
            "resourceType": "Bundle",
            "link": [{"relation": "next", "url": "https://fhir.clinic.uz/pages/8Jk2"}],
            "entry": [{"fullUrl": "https://fhir.clinic.uz/things/8Jk2"}],
        },
    ],
)
async def test_nothing_is_said_where_nothing_is_told(
    ward: Ward, platform_server: Server, answer: dict[str, Any] | None
) -> None:
    """A platform that names itself nowhere, by ids alone, or refuses to be searched."""
    platform_server.statement = statement(None, "Organization")
    platform_server.page = answer
    assert await finding(ward) is None


async def test_nothing_is_said_while_links_are_left_alone(
    ward: Ward, platform_server: Server, platform: Platform
) -> None:
    """With `rewrite.enabled: false` they are the platform's on purpose."""
    platform_server.page = page("Organization", link="https://a.uz/r5", full="urn:x")
    ward.settings["rewrite"] = {"enabled": False}
    assert await finding(ward) is None
    assert not any("?" in each.target for each in platform.requests)


async def test_an_identity_is_no_name(ward: Ward, platform_server: Server) -> None:
    """A resource whose `fullUrl` is its canonical URL; a link to a licence."""
    url = "http://hl7.org/r5/ValueSet/a"
    server = platform_server
    server.statement = statement(server.here, "ValueSet")
    server.page = page("ValueSet", link=server.here, full="urn:x")
    server.page["link"].append({"relation": "license", "url": "http://hl7.org/r5/License"})
    server.page["entry"] = [{"fullUrl": url, "resource": {"resourceType": "ValueSet", "url": url}}]
    assert (await finding(ward) or {})["level"] == "ok"


@pytest.mark.parametrize(
    ("types", "searched"),
    [
        (("Patient", "Organization"), "Organization"),
        (("Patient", "Location"), "Location"),
        (("Patient", "Basic"), "Patient"),
        ((), None),
    ],
)
async def test_one_search_is_made_for_a_type_without_patients(
    ward: Ward,
    platform_server: Server,
    platform: Platform,
    types: tuple[str, ...],
    searched: str | None,
) -> None:
    """One entry is asked for, with the token; another type only where there is no choice."""
    platform_server.statement = statement(None, *types)
    await ward.examine()
    asked = [each for each in platform.requests if "?" in each.target]
    assert [each.target for each in asked] == ([f"/r5/{searched}?_count=1"] if searched else [])
    assert all(each.header("authorization") == "Bearer token-1" for each in asked)


@pytest.mark.parametrize("language", ["en_US.UTF-8", "ru_RU.UTF-8", "uz_UZ.UTF-8"])
async def test_people_read_what_to_set(
    ward: Ward, platform_server: Server, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    """In each language, with the value, in a line."""
    monkeypatch.setenv("LC_ALL", language)
    platform_server.page = page("Organization", link="https://a.uz/r5", full="urn:x")
    code, text = await ward.examine()
    assert code == 1
    assert 'rewrite.aliases: ["https://a.uz/r5"]' in text
