"""Token responses that are compressed although the request did not accept that."""

from __future__ import annotations

import gzip
import json
import zlib

import aiohttp
import pytest

from gateway.config.outbound_settings import SsoSettings
from gateway.oauth.client_authentication import client_secret_post
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import TokenRequestError
from gateway.secret import Secret
from tests.doubles.sso import Sso, http

TOKEN = json.dumps({"access_token": "packed", "token_type": "Bearer"}).encode()
REFUSAL = json.dumps({"error": "invalid_client"}).encode()
BOMB = json.dumps({"access_token": "x", "rest": " " * 1_000_000}).encode()


async def ask(body: bytes, coding: str, code: int = 200) -> str:
    """The token, or what there is instead; the SSO is asked once in any case."""
    jar = aiohttp.DummyCookieJar()
    async with Sso() as sso, aiohttp.ClientSession(cookie_jar=jar) as session:
        sso.handle(http(code, body, ("Content-Encoding", coding), content_type="application/json"))
        endpoint = TokenEndpoint(session=session, sso=SsoSettings(token_url=sso.token_url))
        authenticate = client_secret_post("id", Secret("s"))
        try:
            return (
                await endpoint.request(authenticate, "grant_type=client_credentials")
            ).access_token.reveal()
        except TokenRequestError as error:
            return f"{error.kind} {error.cause} {error.oauth_error}"
        finally:
            assert len(sso.requests) == 1


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(TOKEN, mtime=0)),
        ("X-GZip", gzip.compress(TOKEN, mtime=0)),
        ("deflate", zlib.compress(TOKEN)),
        ("identity", TOKEN),
    ],
)
async def test_usual_codings(coding: str, body: bytes) -> None:
    """A token is found in what the usual codings make of it."""
    assert await ask(body, coding) == "packed"


@pytest.mark.parametrize("code", [400, 401])
async def test_refusal(code: int) -> None:
    """A compressed refusal tells its code like any other."""
    assert await ask(gzip.compress(REFUSAL), "gzip", code) == "refused refused invalid_client"


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", TOKEN),
        ("gzip", gzip.compress(TOKEN)[:-4]),
        ("gzip", gzip.compress(TOKEN)[4:]),
        ("gzip", gzip.compress(BOMB)),
        ("deflate", zlib.compress(BOMB)),
        ("gzip, gzip", gzip.compress(gzip.compress(TOKEN))),
        ("br", TOKEN),
        ("unknown", TOKEN),
    ],
    ids=["not packed", "cut", "broken", "bomb", "other bomb", "twice", "other coding", "unknown"],
)
async def test_unusual(coding: str, body: bytes) -> None:
    """What is broken, grows beyond bounds or is of another coding is transient, and no token."""
    assert await ask(body, coding) == "transient unreadable answer None"
