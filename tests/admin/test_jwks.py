"""The public keys that an operator registers with the SSO."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.oauth.test_private_key_jwt import Assertion, verify
from tests.oauth.test_signing_keys import EC, RSA, as_jwk, pem, thumbprint

PATH = "/.well-known/jwks.json"
OpenGateway = Callable[..., AbstractAsyncContextManager[RunningGateway]]


async def published(admin_url: str, status: int = 200) -> Any:
    async with aiohttp.request("GET", admin_url + PATH) as answer:
        assert (answer.status, answer.content_type) == (status, "application/json")
        return await answer.json()


def credentials(**files: Path) -> dict[str, Mapping[str, str]]:
    """A credential that signs for each file, and one with a secret."""
    signing = {
        name: {"client_id": name, "auth_method": "private_key_jwt", "private_key_file": str(file)}
        for name, file in files.items()
    }
    return {**signing, "plain": {"client_id": "plain", "client_secret": "s"}}


def callers(*names: str) -> list[dict[str, str]]:
    return [{"name": name, "api_key": f"key-of-{name}", "credential": name} for name in names]


@pytest.fixture
def open_gateway(platform: Platform, sso: Sso) -> OpenGateway:
    """Return a function that runs a gateway between the doubles."""
    return functools.partial(running_gateway, platform.url, sso.token_url)


async def test_the_published_key_verifies_what_the_sso_gets(
    open_gateway: OpenGateway, sso: Sso, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(EC))
    async with open_gateway(credentials=credentials(default=file)) as gateway:
        (key,) = (await published(gateway.admin_url))["keys"]
        await sso.wait_for_requests(1)
    assertion = Assertion.of(sso.requests[0].form["client_assertion"])
    assert key == {
        **as_jwk(EC, private=False),
        "kid": thumbprint(as_jwk(EC)),
        "use": "sig",
        "alg": "ES384",
    }
    assert assertion.header["kid"] == key["kid"]
    verify(assertion, key)


@pytest.mark.parametrize(("used", "kinds"), [(("lab",), ["RSA"]), (("plain",), [])])
async def test_only_keys_in_use_are_published(
    open_gateway: OpenGateway, tmp_path: Path, used: tuple[str, ...], kinds: list[str]
) -> None:
    lab, ward = tmp_path / "lab.pem", tmp_path / "ward.pem"
    lab.write_text(pem(RSA))
    ward.write_text(pem(EC))
    sections = {"credentials": credentials(lab=lab, ward=ward), "callers": callers(*used)}
    async with open_gateway(**sections) as gateway:
        keys = (await published(gateway.admin_url))["keys"]
    assert [key["kty"] for key in keys] == kinds


async def test_a_changed_key_file_is_published_at_once(
    open_gateway: OpenGateway, tmp_path: Path
) -> None:
    file = tmp_path / "key.pem"
    file.write_text(pem(EC))
    async with open_gateway(credentials=credentials(default=file)) as gateway:
        file.write_text(pem(RSA) + pem(EC))
        both = (await published(gateway.admin_url))["keys"]
        file.unlink()
        gone = await published(gateway.admin_url, status=500)
    assert [key["alg"] for key in both] == ["RS384", "ES384"]
    assert all(key.keys().isdisjoint({"d", "p", "q", "dp", "dq", "qi"}) for key in both)
    assert gone == {"error": "Internal Server Error"}
