"""Targets as old systems write them: surplus slashes, and letters that are no ASCII."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from gateway.errors import outcome_text
from gateway.i18n import LANGUAGES
from tests.doubles.gateway import Running
from tests.doubles.platform import PATIENT, Platform
from tests.doubles.wire import Wire, ask, get
from tests.pipeline.conftest import StartGateway

NAME = "Ошибка"


def asking(target: bytes, *, language: str = "en") -> bytes:
    """A read of a target of any bytes."""
    fields = f"Host: gateway\r\nAccept-Language: {language}\r\n\r\n"
    return b"GET " + target + b" HTTP/1.1\r\n" + fields.encode()


@pytest.mark.parametrize("slashes", ["//", "///", "/" * 40])
@pytest.mark.parametrize("rest", ["Patient", "Patient/1?a=b//c", "Patient/?", "metadata", ""])
async def test_surplus_slashes_behind_the_base(
    gateway: Running, platform: Platform, slashes: str, rest: str
) -> None:
    """They are dropped, and nothing else changes, for the first request and for those after it."""
    async with await Wire.open(gateway.address) as wire:
        for _ in range(3):
            assert (await wire.ask(get(f"/fhir{slashes}{rest}"))).status == 200
    assert [seen.target for seen in platform.seen] == [f"/r5/{rest}"] * 3


async def test_surplus_slashes_of_a_root(start_gateway: StartGateway, platform: Platform) -> None:
    """Where callers have no base path it is the slashes at the front."""
    async with start_gateway(listen={"base_path": "/"}) as gateway:
        for target in ("/Patient/1", "//Patient/1", "///Patient/1"):
            assert (await ask(gateway.address, get(target))).body == PATIENT
        assert (await ask(gateway.address, get("/Patient//1"))).status == 400
    assert [seen.target for seen in platform.seen] == ["/r5/Patient/1"] * 3


async def test_permissions_see_through_surplus_slashes(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """What a caller may not ask it may not ask with more slashes either."""
    key = "X-Api-Key: a-key-of-the-laboratory"
    lab = {
        "name": "lab",
        "api_key": "a-key-of-the-laboratory",
        "allow": {"resources": ["Observation"]},
    }
    async with start_gateway(callers=[lab]) as gateway:
        refused = await ask(gateway.address, get("/fhir//Patient/1", key))
        allowed = await ask(gateway.address, get("/fhir//Observation/1", key))
    assert (refused.reason, allowed.status) == ("caller-forbidden", 200)
    assert [seen.target for seen in platform.seen] == ["/r5/Observation/1"]


@pytest.mark.parametrize("target", ["/fhir/Patient//1", "//fhir/Patient"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_empty_segment_elsewhere(gateway: Running, target: str, language: str) -> None:
    """The refusal asks whether the base URL ends in a slash."""
    reply = await ask(gateway.address, asking(target.encode(), language=language))
    assert reply.reason == "bad-request"
    issue = reply.json()["issue"][0]
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
async def test_escapes_of_another_encoding(
    gateway: Running, platform: Platform, written: str, place: str, language: str
) -> None:
    """They are refused, and the answer says where they stand and what to write."""
    target = f"/fhir/Patient{'?name=' if place == 'query' else '/'}{FOREIGN[written]}"
    reply = await ask(gateway.address, asking(target.encode(), language=language))
    assert (reply.status, reply.reason) == (400, "bad-request")
    issue = reply.json()["issue"][0]
    assert issue["details"]["text"] == outcome_text("bad-request", language, advice="not-utf-8")
    assert f"{place}: not UTF-8" in issue["diagnostics"]
    assert platform.seen == []


async def test_escapes_of_another_encoding_behind_a_good_request(
    gateway: Running, platform: Platform
) -> None:
    """A request whose header was read before is looked at no less."""
    async with await Wire.open(gateway.address) as wire:
        for name in (quote(NAME), quote(NAME)):
            assert (await wire.ask(get(f"/fhir/Patient?name={name}"))).status == 200
        reply = await wire.ask(get(f"/fhir/Patient?name={FOREIGN['windows-1251']}"))
    assert reply.reason == "bad-request"
    searches = [seen.target for seen in platform.seen if "metadata" not in seen.target]
    assert searches == [f"/r5/Patient?name={quote(NAME)}"] * 2


@pytest.mark.parametrize("encoding", ["utf-8", "cp1251"])
@pytest.mark.parametrize("place", ["query", "path"])
@pytest.mark.parametrize("language", LANGUAGES)
async def test_letters_as_they_are(
    start_gateway: StartGateway, platform: Platform, encoding: str, place: str, language: str
) -> None:
    """They are refused, and the answer says where they stand and what to write.

    Such a request cannot be parsed: it is answered in the settings' language.
    """
    target = f"/fhir/Patient{'?name=' if place == 'query' else '/'}{NAME}".encode(encoding)
    async with start_gateway(fhir={"default_language": language}) as gateway:
        reply = await ask(gateway.address, asking(target))
    assert (reply.status, reply.reason) == (400, "bad-request")
    issue = reply.json()["issue"][0]
    assert issue["details"]["text"] == outcome_text("bad-request", language, advice="raw-bytes")
    assert f"{place}: bytes above 0x7F" in issue["diagnostics"]
    assert platform.seen == []


async def test_another_byte_that_no_target_holds(gateway: Running) -> None:
    """What is not a letter is not taken for one."""
    for target in (b"/fhir/\x01", b"/fhir/\\\x01xd0", b"fhir/Patient"):
        reply = await ask(gateway.address, asking(target))
        assert "target: not in origin form" in reply.json()["issue"][0]["diagnostics"]
