"""Targets as old systems write them: surplus slashes, and letters outside ASCII."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gateway.errors import outcome_text
from gateway.i18n import LANGUAGES
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PATIENT, Platform
from tests.doubles.wire import Wire, fetch, get
from tests.pipeline import shared
from tests.pipeline.conftest import StartGateway

pytestmark = shared.one_loop
platform, sso, gateway = shared.platform, shared.sso, shared.gateway

NAME = "Ошибка"


def read_of(target: bytes, *, language: str = "en") -> bytes:
    fields = f"Host: gateway\r\nAccept-Language: {language}\r\n\r\n"
    return b"GET " + target + b" HTTP/1.1\r\n" + fields.encode()


@pytest.mark.parametrize("slashes", ["//", "///", "/" * 40])
@pytest.mark.parametrize("rest", ["Patient", "Patient/1?a=b//c", "Patient/?", "metadata", ""])
async def test_surplus_slashes_after_the_base_are_removed(
    gateway: RunningGateway, platform: Platform, slashes: str, rest: str
) -> None:
    """Nothing else changes, for the first request and for later ones."""
    async with await Wire.open(gateway.address) as wire:
        for _ in range(3):
            assert (await wire.fetch(get(f"/fhir{slashes}{rest}"))).status == 200
    assert [request.target for request in platform.requests] == [f"/r5/{rest}"] * 3


async def test_surplus_slashes_of_a_root_base_are_removed(
    start_gateway: StartGateway, platform: Platform
) -> None:
    async with start_gateway(listen={"base_path": "/"}) as gateway:
        for target in ("/Patient/1", "//Patient/1", "///Patient/1"):
            assert (await fetch(gateway.address, get(target))).body == PATIENT
        assert (await fetch(gateway.address, get("/Patient//1"))).status == 400
    assert [request.target for request in platform.requests] == ["/r5/Patient/1"] * 3


async def test_permissions_are_checked_without_surplus_slashes(
    start_gateway: StartGateway, platform: Platform
) -> None:
    key = "X-Api-Key: a-key-of-the-laboratory"
    lab = {
        "name": "lab",
        "api_key": "a-key-of-the-laboratory",
        "allow": {"resources": ["Observation"]},
    }
    async with start_gateway(callers=[lab]) as gateway:
        refused = await fetch(gateway.address, get("/fhir//Patient/1", key))
        allowed = await fetch(gateway.address, get("/fhir//Observation/1", key))
    assert (refused.reason, allowed.status) == ("caller-forbidden", 200)
    assert [request.target for request in platform.requests] == ["/r5/Observation/1"]


@pytest.mark.parametrize("target", ["/fhir/Patient//1", "//fhir/Patient"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_empty_segment_elsewhere_is_rejected(
    gateway: RunningGateway, target: str, language: str
) -> None:
    """The error asks whether the base URL ends in a slash."""
    response = await fetch(gateway.address, read_of(target.encode(), language=language))
    assert response.reason == "bad-request"
    issue = response.json()["issue"][0]
    assert issue["details"]["text"] == outcome_text("bad-request", language, advice="surplus-slash")
    assert "does the base URL end in a slash?" in issue["diagnostics"]


FOREIGN = {
    "windows-1251": quote(NAME, encoding="cp1251"),
    "koi8-r": quote(NAME, encoding="koi8-r"),
    "small letters": quote(NAME, encoding="cp1251").lower(),
    "half of a letter": "%D0",
    "among UTF-8": quote(NAME) + "%CE",
    "windows-1251 for a Latin letter": "Jos%E9",
}


@pytest.mark.parametrize("written", FOREIGN)
@pytest.mark.parametrize("place", ["query", "path"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_escapes_that_are_not_utf_8_are_rejected(
    gateway: RunningGateway, platform: Platform, written: str, place: str, language: str
) -> None:
    """The error names the place and the remedy."""
    target = f"/fhir/Patient{'?name=' if place == 'query' else '/'}{FOREIGN[written]}"
    response = await fetch(gateway.address, read_of(target.encode(), language=language))
    assert (response.status, response.reason) == (400, "bad-request")
    issue = response.json()["issue"][0]
    assert issue["details"]["text"] == outcome_text("bad-request", language, advice="not-utf-8")
    assert f"{place}: not UTF-8" in issue["diagnostics"]
    assert platform.requests == []


async def test_escapes_are_checked_after_the_same_header(
    gateway: RunningGateway, platform: Platform
) -> None:
    async with await Wire.open(gateway.address) as wire:
        for name in (quote(NAME), quote(NAME)):
            assert (await wire.fetch(get(f"/fhir/Patient?name={name}"))).status == 200
        response = await wire.fetch(get(f"/fhir/Patient?name={FOREIGN['windows-1251']}"))
    assert response.reason == "bad-request"
    searches = [request.target for request in platform.requests if "metadata" not in request.target]
    assert searches == [f"/r5/Patient?name={quote(NAME)}"] * 2


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
@pytest.mark.parametrize("place", ["query", "path"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_raw_octets_above_ascii_are_rejected(
    start_gateway: StartGateway, platform: Platform, encoding: str, place: str, language: str
) -> None:
    """The error names the place and the remedy, in the default language: nothing was parsed."""
    target = f"/fhir/Patient{'?name=' if place == 'query' else '/'}{NAME}".encode(encoding)
    async with start_gateway(fhir={"default_language": language}) as gateway:
        response = await fetch(gateway.address, read_of(target))
    assert (response.status, response.reason) == (400, "bad-request")
    issue = response.json()["issue"][0]
    assert issue["details"]["text"] == outcome_text("bad-request", language, advice="raw-bytes")
    assert f"{place}: bytes above 0x7F" in issue["diagnostics"]
    assert platform.requests == []


async def test_other_invalid_octets_are_not_reported_as_letters(gateway: RunningGateway) -> None:
    for target in (b"/fhir/\x01", b"/fhir/\\\x01xd0", b"fhir/Patient"):
        response = await fetch(gateway.address, read_of(target))
        assert "target: not in origin form" in response.json()["issue"][0]["diagnostics"]
