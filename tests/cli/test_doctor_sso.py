"""The command `doctor` with a wrong SSO, an unreachable one, or one behind a firewall."""

from __future__ import annotations

import asyncio
import json
import ssl
from base64 import b64decode
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.cli.test_doctor import (
    STATEMENT,
    DoctorSetup,
    platform_with_statement,  # noqa: F401 - a fixture
)
from tests.doubles.connect_proxy import ConnectProxy
from tests.doubles.platform import Platform, fhir
from tests.doubles.processes import free_port, start_gateway
from tests.doubles.sso import (
    ReceivedRequest,
    ScriptedResponse,
    Sso,
    http,
    json_body,
    oauth_error,
    status,
)
from tests.oauth.test_signing_keys import EC, pem
from tests.pipeline.testbed import tls_platform

KNOWN = {
    "https://playground.dhp.uz/sso/oauth/token": "dhp-playground",
    "https://sso.dhp.uz/oauth/token": "dhp-production",
    "https://sso.medcore.uz/oauth/token": "playground and production",
}
FIREWALL = {"success": False, "errors": [{"message": "planted words of the firewall"}]}
PAGE = b"<!DOCTYPE html><title>planted words of a page</title>"


class Published(Sso):
    """An SSO with documents by path; all else that is no POST is 404."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls)
        self.documents: dict[str, ScriptedResponse] = {}

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        if request.method == "POST":
            return super().response_to(request)
        return self.documents.get(request.target, status(404))


@pytest.fixture
async def sso() -> AsyncIterator[Published]:
    async with Published() as double:
        yield double


@pytest.fixture
def setup(tmp_path: Path, platform: Platform, sso: Published) -> DoctorSetup:
    made = DoctorSetup(tmp_path, platform, sso)
    made.settings["environment"] = "dhp-playground"
    made.settings["sso"]["token_url"] = f"http://127.0.0.1:{sso.port}/sso/oauth/token"
    return made


def lists_known_endpoints(text: str) -> bool:
    """Whether the addresses of all environments are there to compare with, each with its name."""
    return all(f"{url} ({names})" in text for url, names in KNOWN.items())


WRONG = {
    "not there": (status(404), ["gave no token", "status 404", "Check sso.token_url"]),
    "a page": (http(200, PAGE), ["gave no token", "a web page", "heck sso.token_url"]),
    "a refusing page": (http(403, PAGE), ["a web page", "status 403", "firewall in front"]),
    "firewall": (json_body(FIREWALL, 401), ["status 401", "a firewall in front of it, or a wrong"]),
    "no OAuth": (json_body({"error": "Forbidden"}, 403), ["status 403", "firewall in front"]),
    "client refused without a word": (
        http(403),
        ["status 403", "a wrong client_id or secret", "secret of credentials.default", "firewall"],
    ),
    "redirect": (
        status(302, ("Location", "https://planted.example/login")),
        ["it answers with a redirect", "Correct sso.token_url"],
    ),
    "another environment": (
        oauth_error("invalid_client", 401),
        ["status 401, invalid_client", "client_id and client secret", "its own SSO"],
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_each_wrong_response_of_the_token_endpoint_is_explained(
    setup: DoctorSetup, sso: Published, name: str
) -> None:
    answer, words = WRONG[name]
    sso.respond(answer)
    failed = await setup.failed()
    assert list(failed) == ["token default"]
    text = failed["token default"]
    assert [each for each in words if each not in text] == []
    assert text.lower().count("check sso.token_url") <= 1
    assert lists_known_endpoints(text)
    assert "planted" not in text


async def test_a_secret_accepted_without_encoding_passes(
    setup: DoctorSetup, sso: Published
) -> None:
    setup.secret.write_text("a+b")
    setup.settings["credentials"]["default"]["auth_method"] = "client_secret_basic"
    sso.script(oauth_error("invalid_client", 401))
    assert await setup.failed() == {}
    forms = [seen.headers["Authorization"] for seen in sso.requests if seen.method == "POST"]
    assert [b64decode(form.removeprefix("Basic ")) for form in forms] == [
        b"hospital-17:a%2Bb",
        b"hospital-17:a+b",
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (status(503), "status 503"),
        (status(429), "status 429"),
        (
            oauth_error("invalid_scope"),
            "default.scope must be a scope that this client_id may request",
        ),
    ],
    ids=["503", "429", "scope"],
)
async def test_other_failures_do_not_suggest_other_endpoints(
    setup: DoctorSetup, sso: Published, answer: ScriptedResponse, words: str
) -> None:
    sso.respond(answer)
    text = (await setup.failed())["token default"]
    assert words in text
    assert "Known token endpoints" not in text
    assert "check client_id" not in text


async def test_an_unreachable_sso_fails_at_its_step(setup: DoctorSetup) -> None:
    port = free_port()
    for url, check in (
        ("https://sso.invalid/oauth/token", "SSO DNS"),
        (f"http://127.0.0.1:{port}/oauth/token", "SSO TCP"),
        (setup.settings["sso"]["token_url"].replace("http:", "https:"), "SSO TLS"),
    ):
        setup.settings["sso"]["token_url"] = url
        failed = await setup.failed()
        assert list(failed) == [check]
        assert lists_known_endpoints(failed[check])


@pytest.mark.parametrize("name", WRONG)
async def test_a_custom_environment_gets_no_national_endpoints(
    setup: DoctorSetup, sso: Published, name: str
) -> None:
    setup.settings["environment"] = "custom"
    sso.respond(WRONG[name][0])
    text = (await setup.failed())["token default"]
    setup.settings["sso"]["token_url"] = "https://sso.invalid/oauth/token"
    text += (await setup.failed())["SSO DNS"]
    assert "Known token endpoints" not in text
    assert "Each environment" not in text


async def test_a_national_platform_in_a_custom_environment_gets_national_endpoints(
    setup: DoctorSetup,
) -> None:
    setup.settings |= {"environment": "custom"}
    setup.settings["platform"]["fhir_base_url"] = "https://fhir.dhp.uz"
    setup.settings["sso"]["token_url"] = "https://sso.invalid/oauth/token"
    assert lists_known_endpoints((await setup.failed())["SSO DNS"])


async def test_the_endpoint_of_the_environment_gets_no_alternatives(setup: DoctorSetup) -> None:
    """Where the address is right and the line is not, other addresses would only mislead."""
    setup.settings["sso"] = {"token_url": "https://sso.dhp.uz/oauth/token", "timeout": 2}
    _, text = await setup.doctor()
    assert "SSO DNS" in text
    assert "Known token endpoints" not in text


async def test_endpoints_of_two_environments_are_both_named(
    setup: DoctorSetup, tmp_path: Path
) -> None:
    context, authority = tls_platform("sso.dhp.uz")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    setup.settings["environment"] = "dhp-playground"
    del setup.settings["platform"]["fhir_base_url"]
    async with Sso(tls=context) as sso, ConnectProxy(hosts={"sso.dhp.uz": "127.0.0.1"}) as proxy:
        sso.respond(oauth_error("invalid_client", 401))
        setup.settings["sso"] = {
            "token_url": f"https://sso.dhp.uz:{sso.port}/oauth/token",
            "ca_file": str(tmp_path / "ca.pem"),
            "proxy_url": proxy.url,
        }
        text = (await setup.failed())["token default"]
    assert "Here sso.token_url is that of dhp-production" in text
    assert "platform.fhir_base_url that of dhp-playground" in text


METADATA_PATHS = (
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server/sso",
    "/sso/.well-known/openid-configuration",
    "/sso/.well-known/oauth-authorization-server",
)


@pytest.mark.parametrize("place", METADATA_PATHS)
async def test_metadata_with_another_token_endpoint_is_reported_and_not_used(
    setup: DoctorSetup, sso: Published, place: str
) -> None:
    async with Sso() as other:
        sso.documents[place] = json_body({"issuer": "x", "token_endpoint": other.token_url})
        code, text = await setup.doctor()
        assert (code, other.requests) == (0, [])
        assert f"{place} names the token endpoint {other.token_url}, sso.token_url is" in text
        sso.respond(oauth_error("invalid_client", 401))
        failed = await setup.failed()
        assert list(failed) == ["token default", "SSO documents"]
        assert other.token_url in failed["SSO documents"]
        assert other.requests == []


async def test_metadata_with_the_configured_token_endpoint_passes(
    setup: DoctorSetup, sso: Published, platform: Platform
) -> None:
    url = setup.settings["sso"]["token_url"]
    sso.documents[METADATA_PATHS[3]] = json_body({"token_endpoint": url})
    statement = STATEMENT[:-1] + b',"token_endpoint":"%s"}' % url.encode()
    platform.respond(fhir(statement, 200, ("Date", formatdate(usegmt=True))))
    code, text = await setup.doctor()
    assert code == 0
    assert text.count("names the token endpoint of the settings") == 2
    paths = [seen.target for seen in platform.requests]
    assert paths == ["/r5/metadata", "/r5/.well-known/smart-configuration"]
    assert platform.requests[1].header("authorization") is None


async def test_smart_configuration_with_another_token_endpoint_is_reported(
    setup: DoctorSetup, platform: Platform
) -> None:
    statement = STATEMENT[:-1] + b',"token_endpoint":"https://elsewhere.example/token"}'
    platform.respond(fhir(statement, 200, ("Date", formatdate(usegmt=True))))
    code, text = await setup.doctor()
    assert code == 0
    assert "smart-configuration names the token endpoint https://elsewhere.example/token" in text


@pytest.mark.parametrize(
    "document",
    [http(200, PAGE), json_body([]), json_body({"token_endpoint": 7}), json_body({}), status(302)],
    ids=["page", "list", "number", "nothing", "redirect"],
)
async def test_invalid_metadata_is_ignored(
    setup: DoctorSetup, sso: Published, document: ScriptedResponse
) -> None:
    sso.documents = dict.fromkeys(METADATA_PATHS, document)
    code, text = await setup.doctor()
    assert code == 0
    assert "SSO documents: none that names a token endpoint" in text


async def test_control_characters_of_metadata_are_not_printed(
    setup: DoctorSetup, sso: Published
) -> None:
    sso.documents[METADATA_PATHS[0]] = json_body({"token_endpoint": "https://x/\x1b[2Jplanted"})
    _, text = await setup.doctor()
    assert "planted" not in text
    assert json.dumps("\x1b")[1:-1] not in text


async def test_metadata_is_fetched_with_the_configured_ca(
    setup: DoctorSetup, tmp_path: Path
) -> None:
    context, authority = tls_platform("127.0.0.1")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    async with Published(tls=context) as sso:
        named: dict[str, Any] = {"token_endpoint": sso.token_url}
        sso.documents[METADATA_PATHS[0]] = json_body(named)
        setup.settings["sso"] = {"token_url": sso.token_url, "ca_file": str(tmp_path / "ca.pem")}
        code, text = await setup.doctor()
    assert code == 0
    assert "names the token endpoint of the settings" in text


START_FIRST = (
    "If the SSO fetches the public keys from /.well-known/jwks.json of this gateway, "
    "start the gateway first"
)


@pytest.mark.parametrize(
    "answer",
    [oauth_error("invalid_client", 401), oauth_error("invalid_request"), status(500)],
    ids=["client", "request", "error"],
)
async def test_an_unpublished_key_is_explained(
    setup: DoctorSetup, sso: Published, answer: ScriptedResponse
) -> None:
    sso.respond(answer)
    assert START_FIRST not in (await setup.failed())["token default"]
    key = setup.folder / "key.pem"
    key.write_text(pem(EC))
    key.chmod(0o600)
    setup.settings["credentials"]["default"] = {
        "client_id": "hospital-17",
        "auth_method": "private_key_jwt",
        "private_key_file": str(key),
    }
    assert (await setup.failed())["token default"].count(START_FIRST) == 1
    gateway = start_gateway(setup.settings, setup.folder)
    setup.settings["admin"]["address"] = urlsplit(gateway.admin_url).netloc
    try:
        await gateway.wait_for_status(200, "/livez")
        assert START_FIRST not in (await setup.failed())["token default"]
    finally:
        await asyncio.to_thread(gateway.process.terminate)
