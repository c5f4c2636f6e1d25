"""The command `dhp-gateway token` with private keys and TLS."""

from __future__ import annotations

import base64
import datetime
import json
from pathlib import Path
from typing import Any

import pytest
import trustme
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pytest_aiohttp import AiohttpRawServer

from tests.cli.test_main import custom, write
from tests.doubles import sso as answers
from tests.doubles.certificates import server_context
from tests.doubles.command import dhp
from tests.doubles.sso import Sso


def key_file(path: Path, curve: ec.EllipticCurve) -> Path:
    key = ec.generate_private_key(curve)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key.private_bytes(*form))
    return path


def with_private_key(sso: Sso, file: Path) -> dict[str, Any]:
    credential = {"client_id": "a", "auth_method": "private_key_jwt", "private_key_file": str(file)}
    return {**custom(sso), "credentials": {"default": credential}}


@pytest.mark.parametrize("answer", [None, answers.oauth_error("invalid_client", 401)])
async def test_the_assertion_and_the_public_key_are_printed(
    tmp_path: Path, answer: answers.ScriptedResponse | None
) -> None:
    file = key_file(tmp_path / "key.pem", ec.SECP384R1())
    async with Sso() as sso:
        sso.respond(answer)
        result = await dhp("token", "--config", write(tmp_path, with_private_key(sso, file)))
        sent = sso.requests[0].form["client_assertion"].split(".")
        token_url = sso.token_url
    facts = dict(line.split(": ", 1) for line in result.out.splitlines())
    header, claims, key = (
        json.loads(facts[name]) for name in ("assertion header", "assertion claims", "public key")
    )
    assert result.code == (0 if answer is None else 1)
    assert header == {"alg": "ES384", "typ": "JWT", "kid": key["kid"]}
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("a", "a", token_url)
    assert claims["exp"] - claims["iat"] <= 300
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert json.loads(base64.urlsafe_b64decode(sent[0] + "==")) == header
    assert sent[2] not in result.out + result.err


@pytest.mark.parametrize(("command", "code"), [("run", 3), ("token", 3), ("check", 2)])
async def test_an_unusable_key_is_reported(tmp_path: Path, command: str, code: int) -> None:
    file = key_file(tmp_path / "key.pem", ec.SECP256R1())
    async with Sso() as sso:
        settings = with_private_key(sso, file)
        settings["listen"] = settings["admin"] = {"address": "127.0.0.1:0"}
        result = await dhp(command, "--config", write(tmp_path, settings))
        assert sso.requests == []
    assert result.code == code
    last = (result.out + result.err).splitlines()[-1]
    assert f"credentials.default.private_key_file: {file}: is an EC key of the curve" in last


def behind_tls(*names: str, **options: Any) -> tuple[Sso, trustme.CA]:
    """An SSO with a certificate of a private CA for these names."""
    authority = trustme.CA()
    return Sso(server_context(authority, *names, **options)), authority


async def failure_text(folder: Path, settings: dict[str, Any]) -> str:
    result = await dhp("token", "--config", write(folder, settings))
    assert (result.code, result.out) == (1, "")
    return result.err


async def test_certificate_errors_are_told_apart(tmp_path: Path) -> None:
    unknown, _ = behind_tls("127.0.0.1")
    async with unknown:
        assert "is not trusted; if you have your own CA" in await failure_text(
            tmp_path, custom(unknown)
        )
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    for names, options, words in (
        (("other.example",), {}, "is for another host"),
        (("127.0.0.1",), {"not_after": past}, "is not valid at this time"),
    ):
        sso, authority = behind_tls(*names, **options)
        authority.cert_pem.write_to_path(tmp_path / "ca.pem")
        async with sso:
            settings = custom(sso)
            settings["sso"]["ca_file"] = str(tmp_path / "ca.pem")
            assert words in await failure_text(tmp_path, settings)


async def test_https_to_a_port_without_tls_is_explained(
    tmp_path: Path, aiohttp_raw_server: AiohttpRawServer
) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response()

    server = await aiohttp_raw_server(answer)
    async with Sso() as sso:
        settings = custom(sso)
        settings["sso"]["token_url"] = f"https://127.0.0.1:{server.port}/oauth/token"
        assert (
            "there is no TLS on this port; check port and https:// in sso.token_url"
            in await failure_text(tmp_path, settings)
        )


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("s3cret ", "client_secret begins or ends with a blank"),
        ("s3cret-new\ns3cret-old\n", "client_secret has several: the first was tried"),
        ("s3cret", ""),
    ],
    ids=["a blank", "several", "fine"],
)
async def test_blanks_or_several_secrets_in_the_file_of_a_rejected_secret_are_reported(
    tmp_path: Path, secret: str, told: str
) -> None:
    file = tmp_path / "secret"
    file.write_text(secret)
    async with Sso() as sso:
        sso.respond(answers.oauth_error("invalid_client", 401))
        credential = {"client_id": "a", "client_secret_file": str(file)}
        text = await failure_text(tmp_path, {**custom(sso), "credentials": {"default": credential}})
        assert len(sso.requests) == 1
    assert told in text
    assert bool(told) is ("client_secret begins" in text or "client_secret has" in text)
    assert "s3cret" not in text
