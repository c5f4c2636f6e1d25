"""The command `doctor` with a platform whose links have another base than the settings."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.test_doctor import DoctorSetup
from tests.doubles.platform import Platform, PlatformConnection, fhir, outcome
from tests.doubles.sso import Sso
from tests.extent import left_to_ci

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


def capability_statement(url: str | None, *types: str) -> dict[str, Any]:
    """A CapabilityStatement that names the server, and types that can be searched."""
    search = {"interaction": [{"code": "read"}, {"code": "search-type"}]}
    return {
        "resourceType": "CapabilityStatement",
        "fhirVersion": "5.0.0",
        **({} if url is None else {"implementation": {"description": "a server", "url": url}}),
        "rest": [{"resource": [{"type": type_, **search} for type_ in types]}],
    }


def searchset(
    kind: str, *, link: str, full: str, paging: str = "{link}/{kind}?_page=2"
) -> dict[str, Any]:
    """Return a searchset whose links have these bases."""
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
        self.capability_statement = capability_statement(self.here, "Patient", "Organization")
        self.searchset: dict[str, Any] | None = None
        platform.respond(self._answer)

    async def _answer(self, connection: PlatformConnection) -> None:
        wanted = (
            self.capability_statement
            if connection.request.target.endswith("/metadata")
            else self.searchset
        )
        body = outcome(403) if wanted is None else fhir(json.dumps(wanted).encode())
        connection.writer.write(body)
        await connection.writer.drain()


@pytest.fixture
def platform_server(platform: Platform) -> Server:
    return Server(platform)


@pytest.fixture
def setup(tmp_path: Path, platform: Platform, sso: Sso) -> DoctorSetup:
    return DoctorSetup(tmp_path, platform, sso)


async def links_finding(setup: DoctorSetup) -> dict[str, str] | None:
    found = [each for each in await setup.findings() if each["code"] == "platform-links"]
    return found[0] if found else None


@pytest.mark.parametrize(
    ("name", "where"),
    left_to_ci(itertools.product(NAMES.values(), ("link", "full", "both")), but=9),
)
async def test_links_with_another_base_are_an_error_that_names_the_alias(
    setup: DoctorSetup, platform_server: Server, name: str, where: str
) -> None:
    server = platform_server
    alias = name.format(port=server.port)
    link = server.here if where == "full" else alias
    full = server.here if where == "link" else alias
    server.searchset = searchset("Organization", link=link, full=full)
    found = await links_finding(setup)
    assert found is not None
    assert (found["level"], found["key"]) == ("error", "rewrite.aliases")
    assert f'rewrite.aliases: ["{alias}"]' in found["hint"]
    setup.settings["rewrite"] = {"aliases": [alias]}
    found = await links_finding(setup)
    assert found is not None
    assert found["level"] == "ok"


async def test_a_next_link_that_is_a_query_of_the_base_is_recognised(
    setup: DoctorSetup, platform_server: Server
) -> None:
    alias = "https://fhir.clinic.uz/r5"
    platform_server.searchset = searchset(
        "Organization", link=alias, full=platform_server.here, paging="{link}?_getpages=1"
    )
    found = await links_finding(setup)
    assert found is not None
    assert f'["{alias}"]' in found["hint"]


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_a_statement_with_another_base_is_a_warning(
    setup: DoctorSetup, platform_server: Server, name: str
) -> None:
    server = platform_server
    alias = name.format(port=server.port)
    server.capability_statement = capability_statement(f"{alias}/", "Patient", "Organization")
    for answer in (None, searchset("Organization", link=server.here, full=server.here)):
        server.searchset = answer
        found = await links_finding(setup)
        assert found is not None
        assert found["level"] == "warning"
        assert f'rewrite.aliases: ["{alias}"]' in found["hint"]


async def test_links_with_the_configured_base_pass(
    setup: DoctorSetup, platform_server: Server
) -> None:
    server = platform_server
    same = server.here.replace("http:", "HTTP:")
    assert (await links_finding(setup) or {})["level"] == "ok"
    server.capability_statement = capability_statement(None, "Organization")
    server.searchset = searchset("Organization", link=same, full="urn:x")
    assert (await links_finding(setup) or {})["level"] == "ok"


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"resourceType": "Bundle", "type": "searchset"},
        searchset("Organization", link=".", full="urn:x"),
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
async def test_nothing_is_reported_without_absolute_links(
    setup: DoctorSetup, platform_server: Server, answer: dict[str, Any] | None
) -> None:
    platform_server.capability_statement = capability_statement(None, "Organization")
    platform_server.searchset = answer
    assert await links_finding(setup) is None


async def test_nothing_is_checked_while_rewriting_is_disabled(
    setup: DoctorSetup, platform_server: Server, platform: Platform
) -> None:
    platform_server.searchset = searchset("Organization", link="https://a.uz/r5", full="urn:x")
    setup.settings["rewrite"] = {"enabled": False}
    assert await links_finding(setup) is None
    assert not any("?" in each.target for each in platform.requests)


async def test_canonical_urls_are_not_taken_for_the_base(
    setup: DoctorSetup, platform_server: Server
) -> None:
    url = "http://hl7.org/r5/ValueSet/a"
    server = platform_server
    server.capability_statement = capability_statement(server.here, "ValueSet")
    server.searchset = searchset("ValueSet", link=server.here, full="urn:x")
    server.searchset["link"].append({"relation": "license", "url": "http://hl7.org/r5/License"})
    server.searchset["entry"] = [
        {"fullUrl": url, "resource": {"resourceType": "ValueSet", "url": url}}
    ]
    assert (await links_finding(setup) or {})["level"] == "ok"


@pytest.mark.parametrize(
    ("types", "searched"),
    [
        (("Patient", "Organization"), "Organization"),
        (("Patient", "Location"), "Location"),
        (("Patient", "Basic"), "Patient"),
        ((), None),
    ],
)
async def test_the_search_prefers_a_type_without_patients(
    setup: DoctorSetup,
    platform_server: Server,
    platform: Platform,
    types: tuple[str, ...],
    searched: str | None,
) -> None:
    platform_server.capability_statement = capability_statement(None, *types)
    await setup.doctor()
    asked = [each for each in platform.requests if "?" in each.target]
    assert [each.target for each in asked] == ([f"/r5/{searched}?_count=1"] if searched else [])
    assert all(each.header("authorization") == "Bearer token-1" for each in asked)
