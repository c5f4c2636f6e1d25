"""The token request as the SSO sees it, and what becomes of every answer."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import math
import traceback
import zlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from gateway.config.outbound_settings import CredentialSettings, SsoSettings
from gateway.field_values import parse_retry_after
from gateway.oauth.client_authentication import (
    ClientAuthentication,
    client_secret_basic,
    client_secret_post,
    parse_client_secrets,
)
from gateway.oauth.grants import client_credentials_form
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import MAX_LIFETIME, TokenRequestError
from gateway.oauth.token_store import StoreKey
from gateway.secret import Secret
from tests.doubles.clock import FakeClock
from tests.doubles.sso import (
    CLOSE,
    HANG,
    RESET,
    ScriptedResponse,
    Sso,
    http,
    json_body,
    oauth_error,
    status,
    token,
)
from tests.oauth.harness import credential_of

SECRET = "plan:ted%+/ é"
CLIENT = "hospital 17"
ODD = [True, False, [], [300], {}]


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(cookie_jar=jar, trust_env=False) as made:
        yield made


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def endpoint(sso: Sso, session: aiohttp.ClientSession, clock: FakeClock) -> TokenEndpoint:
    """The object under test, with a time-out that no test waits for by mistake."""
    return TokenEndpoint(
        session=session,
        sso=SsoSettings(token_url=sso.token_url),
        clock=clock,
        wall_clock=clock.wall,
    )


def grant(
    authenticate: ClientAuthentication | None = None, **fields: Any
) -> tuple[ClientAuthentication, str]:
    """A grant that authenticates in the form, unless told otherwise."""
    form = client_credentials_form(CredentialSettings(client_id=CLIENT, **fields))
    return authenticate or client_secret_post(CLIENT, Secret(SECRET)), form


async def failure(endpoint: TokenEndpoint) -> TokenRequestError:
    with pytest.raises(TokenRequestError) as caught:
        await endpoint.request(*grant())
    return caught.value


def jwt(**claims: object) -> str:
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")
        for part in ({"alg": "RS256"}, claims)
    ]
    return ".".join([*parts, "c2lnbmF0dXJl"])


class TestRequest:
    """What goes to the SSO."""

    async def test_client_secret_post_sends_id_and_secret_in_the_form(
        self, endpoint: TokenEndpoint, sso: Sso
    ) -> None:
        await endpoint.request(*grant())
        (request,) = sso.requests
        assert (request.method, request.target) == ("POST", "/oauth/token")
        assert request.form == {
            "grant_type": "client_credentials",
            "client_id": CLIENT,
            "client_secret": SECRET,
        }
        headers = request.headers
        assert "Authorization" not in headers
        # A form, which accepts JSON that is not compressed.
        assert headers["Accept"] == "application/json"
        assert headers["Accept-Encoding"] == "identity"
        assert headers["Content-Type"] == "application/x-www-form-urlencoded"
        assert len(headers.getall("Accept")) == len(headers.getall("Content-Type")) == 1

    async def test_client_secret_basic_encodes_id_and_secret_in_the_header(
        self, endpoint: TokenEndpoint, sso: Sso
    ) -> None:
        await endpoint.request(*grant(authenticate=client_secret_basic(CLIENT, Secret(SECRET))))
        (request,) = sso.requests
        _, _, encoded = request.headers["Authorization"].partition("Basic ")
        assert base64.b64decode(encoded) == b"hospital+17:plan%3Ated%25%2B%2F+%C3%A9"
        assert request.basic == (CLIENT, SECRET)
        assert request.form == {"grant_type": "client_credentials"}

    async def test_scope_and_extra_parameters_are_sent_once(
        self, endpoint: TokenEndpoint, sso: Sso
    ) -> None:
        await endpoint.request(
            *grant(scope="system/*.read fhir", extra_params={"audience": "https://a/?b=c&d é"})
        )
        form = sso.requests[0].form
        assert form["scope"] == "system/*.read fhir"
        assert form["audience"] == "https://a/?b=c&d é"

    async def test_cookies_are_ignored(self, endpoint: TokenEndpoint, sso: Sso) -> None:
        body = json.dumps({"access_token": "one"}).encode()
        sso.script(http(200, body, ("Set-Cookie", "sid=planted; Path=/")))
        await endpoint.request(*grant())
        await endpoint.request(*grant())
        assert all("Cookie" not in request.headers for request in sso.requests)

    @pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
    async def test_redirects_are_not_followed(
        self, endpoint: TokenEndpoint, sso: Sso, code: int
    ) -> None:
        async with Sso() as elsewhere:
            sso.script(status(code, ("Location", elsewhere.token_url)))
            error = await failure(endpoint)
            assert elsewhere.requests == []
        assert (error.kind, error.cause, error.status) == ("transient", "redirect", code)
        assert len(sso.requests) == 1

    def test_store_key_changes_with_what_is_asked(self, endpoint: TokenEndpoint) -> None:
        def key(secret: str = SECRET, platform: str = "https://a.test", **fields: Any) -> StoreKey:
            found = parse_client_secrets(CLIENT, Secret(secret), in_header=False)
            asked = credential_of(endpoint, found, client=CLIENT, platform=platform, **fields)
            return asked.store_key

        keys = {
            key(),
            key("other"),
            key(platform="https://b.test"),
            key(scope="a"),
            key(extra_params={"a": SECRET}),
        }
        assert len(keys) == 5
        assert len({key.name for key in keys}) == 5
        assert not any(SECRET in repr(key) or CLIENT in repr(key) for key in keys)


class TestFailures:
    """How a failure is classified."""

    @pytest.mark.parametrize("code", [400, 401, 403])
    @pytest.mark.parametrize(
        ("error", "shown"),
        [
            ("invalid_client", "invalid_client"),
            ("invalid_scope", "invalid_scope"),
            ("unauthorized_client", "unauthorized_client"),
            ("access_denied", "access_denied"),
            ("made_up", "made_up"),
            ("urn:sso:client.disabled", "urn:sso:client.disabled"),
            ("x" * 64, "other"),
            ("no_" * 22, "other"),
            ("abcdefgh12345678", "other"),
        ],
    )
    async def test_oauth_errors_with_400_401_and_403_reject_the_client(
        self, endpoint: TokenEndpoint, sso: Sso, code: int, error: str, shown: str
    ) -> None:
        """400, 401 and 403 with an OAuth error are refusals, by the SSO's code.

        A code that could be a secret, or is too long, is `other`.
        """
        sso.script(oauth_error(error, code))
        seen = await failure(endpoint)
        assert (seen.kind, seen.status, seen.oauth_error) == ("refused", code, shown)

    @pytest.mark.parametrize("code", [400, 401, 403, 500, 503])
    @pytest.mark.parametrize("error", ["server_error", "temporarily_unavailable"])
    async def test_error_codes_of_an_outage_are_transient(
        self, endpoint: TokenEndpoint, sso: Sso, code: int, error: str
    ) -> None:
        """Codes that RFC 6749 section 4.1.2.1 has for an outage are no refusal."""
        sso.script(oauth_error(error, code))
        seen = await failure(endpoint)
        assert (seen.kind, seen.cause, seen.oauth_error) == ("transient", "error status", error)

    @pytest.mark.parametrize(
        ("answer", "cause"),
        [
            (status(200), "web page"),
            (status(401), "web page"),
            (http(403, b"\xef\xbb\xbf\n<!DOCTYPE html>"), "web page"),
            (http(403), "no OAuth error"),
            (http(400, b"[" * 60_000), "no OAuth error"),
            (http(401, b"x" * 70_000), "no OAuth error"),
            (json_body(["error"], 400), "no OAuth error"),
            (json_body({"error": ["invalid_client"]}, 401), "no OAuth error"),
            (json_body({"success": False, "errors": ["blocked"]}, 400), "no OAuth error"),
            (json_body({"status": 403, "error": "Forbidden", "path": "/"}, 403), "no OAuth error"),
            (
                ScriptedResponse(b"HTTP/1.1 401 No\r\nContent-Length: 100\r\n\r\n{"),
                "no OAuth error",
            ),
        ],
        ids=[
            *("html with 200", "html", "page", "empty", "nested", "huge", "list", "no text"),
            *("firewall", "reason phrase", "broken off"),
        ],
    )
    async def test_errors_without_an_oauth_code(
        self, endpoint: TokenEndpoint, sso: Sso, answer: ScriptedResponse, cause: str
    ) -> None:
        sso.script(answer)
        seen = await failure(endpoint)
        assert (seen.kind, seen.cause, seen.oauth_error) == ("transient", cause, None)

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 408, 415, 429, 500, 502, 503, 504])
    async def test_other_statuses_are_transient_or_throttled(
        self, endpoint: TokenEndpoint, sso: Sso, code: int
    ) -> None:
        sso.script(status(code, ("Retry-After", "17")))
        seen = await failure(endpoint)
        kind = "throttled" if code == 429 else "transient"
        assert (seen.kind, seen.status, seen.retry_after) == (kind, code, 17.0)

    @pytest.mark.parametrize(
        "answer",
        [
            status(200),
            http(200),
            http(204),
            http(200, b'{"access_token": "a"'),
            http(200, b"\xff\xfe\xfa"),
            http(200, b"[" * 60_000),
            http(200, b'{"access_token": "a", "token_type": ' + b"[" * 900 + b"]" * 900 + b"}"),
            http(200, b'{"access_token": "a", "token_type": ' + b"[" * 9000 + b"]" * 9000 + b"}"),
            http(200, b'{"access_token": "a", "x": "' + b"x" * 65_536 + b'"}'),
            json_body(["a"]),
            json_body("a"),
            json_body(None),
            json_body({}),
            json_body({"error": "invalid_client"}),
            json_body({"access_token": ""}),
            json_body({"access_token": None}),
            json_body({"access_token": 17}),
            json_body({"access_token": ["a"]}),
            json_body({"access_token": "a b"}),
            json_body({"access_token": "a\r\nX-Evil: 1"}),
            json_body({"access_token": "a\n"}),
            json_body({"access_token": "é"}),
            json_body({"access_token": "a\x7f"}),
            token("a", token_type="mac"),
            token("a", token_type="DPoP"),
            token("a", token_type=""),
            token("a", token_type=["Bearer"]),
            token("tökén"),
            RESET,
            CLOSE,
            ScriptedResponse(b"SSH-2.0-OpenSSH\r\n"),
            ScriptedResponse(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"),
            ScriptedResponse(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", end="reset"),
            ScriptedResponse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{"),
        ],
    )
    async def test_invalid_token_responses(
        self, endpoint: TokenEndpoint, sso: Sso, answer: ScriptedResponse
    ) -> None:
        sso.script(answer)
        seen = await failure(endpoint)
        assert seen.kind == "transient"
        assert not seen.cause.startswith("unexpected")
        assert len(sso.requests) == 1

    @pytest.mark.parametrize(
        "answer",
        [HANG, ScriptedResponse(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", end="hang")],
    )
    async def test_the_timeout_includes_the_body(
        self, sso: Sso, session: aiohttp.ClientSession, answer: ScriptedResponse
    ) -> None:
        endpoint = TokenEndpoint(
            session=session, sso=SsoSettings(token_url=sso.token_url, timeout=0.1)
        )
        sso.script(answer)
        seen = await failure(endpoint)
        assert (seen.kind, seen.cause) == ("transient", "time-out")

    async def test_a_refused_connection_is_transient(self, session: aiohttp.ClientSession) -> None:
        async with Sso() as gone:
            url = gone.token_url
        seen = await failure(TokenEndpoint(session=session, sso=SsoSettings(token_url=url)))
        assert (seen.kind, seen.cause) == ("transient", "no connection")

    async def test_a_cancelled_request_is_not_classified(
        self, endpoint: TokenEndpoint, sso: Sso
    ) -> None:
        sso.hold()
        task = asyncio.ensure_future(endpoint.request(*grant()))
        await sso.wait_for_requests(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    @pytest.mark.parametrize(
        "answer",
        [
            json_body({"error": "invalid_client", "error_description": f"no {SECRET}"}, 401),
            json_body({"error": SECRET, "access_token": "planted-token"}, 400),
            http(200, f"<html>{SECRET} planted-token".encode()),
            json_body({"access_token": "planted-token", "token_type": "planted-token"}),
            json_body({"access_token": "planted-token\n"}),
            ScriptedResponse(f"HTTP/1.1 {SECRET}\r\n\r\n".encode()),
            RESET,
        ],
    )
    @pytest.mark.parametrize("method", [client_secret_post, client_secret_basic])
    async def test_errors_hold_no_secret(
        self, endpoint: TokenEndpoint, sso: Sso, answer: ScriptedResponse, method: object
    ) -> None:
        sso.script(answer)
        asked = grant(authenticate=method(CLIENT, Secret(SECRET)))
        with pytest.raises(TokenRequestError) as caught:
            await endpoint.request(*asked)
        shown = repr(caught.value) + repr(asked) + str(caught.value.__dict__)
        shown += "".join(traceback.format_exception(caught.value))
        assert caught.value.__context__ is None
        for planted in (SECRET, "planted", "html", "ted%25", sso.token_url):
            assert planted not in shown


TOKEN = json.dumps({"access_token": "packed", "token_type": "Bearer"}).encode()
BOMB = json.dumps({"access_token": "x", "rest": " " * 1_000_000}).encode()


def coded(body: bytes, coding: str, code: int = 200) -> ScriptedResponse:
    """An answer in a coding that the request did not accept."""
    return http(code, body, ("Content-Encoding", coding), content_type="application/json")


class TestCompressed:
    """Answers that are compressed although the request did not accept that."""

    @pytest.mark.parametrize(
        ("coding", "body"),
        [
            ("gzip", gzip.compress(TOKEN, mtime=0)),
            ("X-GZip", gzip.compress(TOKEN, mtime=0)),
            ("deflate", zlib.compress(TOKEN)),
            ("identity", TOKEN),
        ],
    )
    async def test_gzip_and_deflate_responses_are_decoded(
        self, endpoint: TokenEndpoint, sso: Sso, coding: str, body: bytes
    ) -> None:
        sso.script(coded(body, coding))
        assert (await endpoint.request(*grant())).access_token.reveal() == "packed"

    @pytest.mark.parametrize("code", [400, 401])
    async def test_a_compressed_error_is_decoded(
        self, endpoint: TokenEndpoint, sso: Sso, code: int
    ) -> None:
        body = json.dumps({"error": "invalid_client"}).encode()
        sso.script(coded(gzip.compress(body), "gzip", code))
        seen = await failure(endpoint)
        assert (seen.kind, seen.oauth_error) == ("refused", "invalid_client")

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
        ids=["not packed", "cut", "broken", "bomb", "other bomb", "twice", "br", "unknown"],
    )
    async def test_broken_or_unsupported_coding(
        self, endpoint: TokenEndpoint, sso: Sso, coding: str, body: bytes
    ) -> None:
        sso.script(coded(body, coding))
        seen = await failure(endpoint)
        assert (seen.kind, seen.cause) == ("transient", "unreadable answer")
        assert len(sso.requests) == 1


class TestLifetime:
    """The lifetime in a token response."""

    @pytest.mark.parametrize("token_type", ["Bearer", "bearer", "bEaReR", None])
    async def test_token_type_is_compared_without_case(
        self, endpoint: TokenEndpoint, sso: Sso, token_type: str | None
    ) -> None:
        sso.script(token("abc", token_type=token_type))
        assert (await endpoint.request(*grant())).access_token.reveal() == "abc"

    @pytest.mark.parametrize(
        ("expires_in", "lifetime"),
        [
            (3, 3.0),
            (3.5, 3.5),
            ("300", 300.0),
            (" 300 ", 300.0),
            ("300.5", 300.5),
            (86_400, MAX_LIFETIME),
            (86_401, MAX_LIFETIME),
            (10**30, MAX_LIFETIME),
            (1e308, MAX_LIFETIME),
            ("1e30", MAX_LIFETIME),
            ("9" * 5000, MAX_LIFETIME),
            (math.inf, MAX_LIFETIME),
        ],
    )
    async def test_expires_in_is_a_number_of_at_most_a_day(
        self, endpoint: TokenEndpoint, sso: Sso, expires_in: object, lifetime: float
    ) -> None:
        sso.script(token("abc", expires_in=expires_in))
        response = await endpoint.request(*grant())
        assert (response.lifetime, response.lifetime_source) == (lifetime, "expires_in")

    async def test_expires_in_of_many_digits(self, endpoint: TokenEndpoint, sso: Sso) -> None:
        sso.script(http(200, b'{"access_token": "abc", "expires_in": ' + b"9" * 5000 + b"}"))
        assert (await endpoint.request(*grant())).lifetime == MAX_LIFETIME

    @pytest.mark.parametrize(
        "expires_in",
        [None, 0, -1, math.nan, -math.inf, "0", "-5", "", "soon", "nan", "inf", "1_000", "٣", *ODD],
    )
    async def test_default_lifetime(
        self, endpoint: TokenEndpoint, sso: Sso, expires_in: object
    ) -> None:
        sso.script(token("abc", expires_in=expires_in))
        response = await endpoint.request(*grant())
        assert (response.lifetime, response.lifetime_source) == (300.0, "default")

    @pytest.mark.parametrize(
        ("exp", "iat", "lifetime"),
        [
            (60, None, 60.0),
            (60, 0, 60.0),
            (60, -30, 60.0),
            (86_400 + 60, 86_400, 60.0),
            (-86_400 + 60, -86_400, 60.0),
            (10**7, None, MAX_LIFETIME),
            (60, 90, 60.0),
        ],
        ids=["exp", "new", "kept", "our clock late", "our clock early", "long", "iat after exp"],
    )
    async def test_the_lifetime_of_a_jwt_is_from_exp_and_iat(
        self,
        endpoint: TokenEndpoint,
        sso: Sso,
        clock: FakeClock,
        exp: float,
        iat: float | None,
        lifetime: float,
    ) -> None:
        claims = {"exp": clock.wall() + exp}
        if iat is not None:
            claims["iat"] = clock.wall() + iat
        sso.script(token(jwt(**claims), expires_in=0))
        response = await endpoint.request(*grant())
        assert (response.lifetime, response.lifetime_source) == (lifetime, "jwt")

    @pytest.mark.parametrize(
        "value",
        [
            "a.b",
            "a.b.c",
            "a.!!!!.c",
            "a.W10.c",
            "..",
            jwt(),
            jwt(exp="soon"),
            jwt(exp=[1]),
            jwt(exp=math.nan),
            jwt(exp=1),
            jwt(exp=-1e30, iat=1e30),
            f"a.{base64.urlsafe_b64encode(b'[' * 30_000).decode()}.c",
        ],
    )
    async def test_other_tokens_have_the_default_lifetime(
        self, endpoint: TokenEndpoint, sso: Sso, value: str
    ) -> None:
        sso.script(token(value, expires_in=None))
        assert (await endpoint.request(*grant())).lifetime_source == "default"

    async def test_the_lifetime_begins_before_the_request(
        self, endpoint: TokenEndpoint, sso: Sso, clock: FakeClock
    ) -> None:
        before = clock()
        sso.hold()
        task = asyncio.ensure_future(endpoint.request(*grant()))
        await sso.wait_for_requests(1)
        clock.now += 7
        sso.release()
        assert (await task).requested_at == before

    @pytest.mark.parametrize(
        ("scope", "kept"), [("a b", "a b"), (None, None), ("a\nb", None), (["a"], None)]
    )
    async def test_a_scope_of_one_line_is_kept(
        self, endpoint: TokenEndpoint, sso: Sso, scope: object, kept: str | None
    ) -> None:
        sso.script(token("abc", scope=scope))
        assert (await endpoint.request(*grant())).scope == kept


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("17", 17.0),
        (" 0 ", 0.0),
        ("9" * 400, 300.0),
        ("100000", 300.0),
        ("Thu, 01 Jan 1970 00:01:00 GMT", 20.0),
        ("Thu, 01 Jan 1970 00:01:00", 20.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 300.0),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("", None),
        ("soon", None),
        ("Thu, 99 Jan 1970 00:01:00 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_within_bounds(
    value: str | None, seconds: float | None
) -> None:
    assert parse_retry_after(value, 40.0, max_delay=300.0) == seconds
