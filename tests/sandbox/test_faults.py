"""Faults on request."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
import pytest

from gateway.sandbox.options import Faults, SandboxOptions
from tests.sandbox.harness import CREDENTIALS, FixedRandom, running_sandbox


def options(**how: object) -> SandboxOptions:
    return SandboxOptions(port=0, faults=Faults.parse(**how))  # type: ignore[arg-type]


def test_options_are_parsed() -> None:
    faults = Faults.parse(["sso=503", "platform=html"], ["platform=2s", "sso=500ms"], 5, 0.1)
    assert faults == Faults({"sso": 503, "platform": "html"}, {"platform": 2.0, "sso": 0.5}, 5, 0.1)
    assert Faults.parse() == Faults()


@pytest.mark.parametrize(
    ("fail", "slow", "lifetime", "share", "text"),
    [
        (["database=503"], [], None, 0, "--fail database=503"),
        (["sso"], [], None, 0, "--fail sso"),
        (["sso=200"], [], None, 0, "400 to 599"),
        (["sso=503", "sso=500"], [], None, 0, "twice"),
        (["platform=slow"], [], None, 0, "html or reset"),
        ([], ["sso=-1s"], None, 0, "such as 2s"),
        ([], ["sso=inf"], None, 0, "such as 2s"),
        ([], ["sso=2min"], None, 0, "such as 2s"),
        ([], [], 0, 0, "--token-lifetime 0"),
        ([], [], 1.5, 0, "--token-lifetime 1.5"),
        ([], [], float("nan"), 0, "--token-lifetime nan"),
        ([], [], None, 1.5, "--reject-tokens 1.5"),
        ([], [], None, float("nan"), "--reject-tokens nan"),
    ],
)
def test_invalid_options_are_rejected(
    fail: Sequence[str], slow: Sequence[str], lifetime: float | None, share: float, text: str
) -> None:
    with pytest.raises(ValueError, match=text.replace("-", r"\-")):
        Faults.parse(fail, slow, lifetime, share)


@pytest.mark.parametrize(
    ("status", "error"), [(400, "invalid_request"), (401, "invalid_client"), (503, "server_error")]
)
async def test_the_sso_fails_with_a_status(status: int, error: str) -> None:
    async with running_sandbox(options(fail=[f"sso={status}"])) as client:
        answer = await client.ask_token(CREDENTIALS)
        other = await client.ask("GET", client.sandbox.fhir_base_url + "/metadata")
    assert client.lines[0].endswith(f"{status}  failed on purpose")
    assert (answer.status, answer.json) == (status, {"error": error})
    assert other.status == 401


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "processing"),
        (403, "forbidden"),
        (404, "not-found"),
        (429, "throttled"),
        (503, "transient"),
    ],
)
async def test_the_platform_fails_with_a_status(status: int, code: str) -> None:
    async with running_sandbox(options(fail=[f"platform={status}"])) as client:
        answer = await client.fhir("GET", "/metadata")
    assert (answer.status, answer.issue["code"]) == (status, code)
    assert ["failed on purpose" in line for line in client.lines] == [False, True]


async def test_the_platform_fails_with_a_page() -> None:
    async with running_sandbox(options(fail=["platform=html"])) as client:
        answer = await client.fhir("GET", "/metadata")
    assert answer.status == 502
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"<h1>502" in answer.body


async def test_the_platform_resets_the_connection() -> None:
    async with running_sandbox(options(fail=["platform=reset"])) as client:
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await client.fhir("GET", "/metadata")
        assert "connection reset" in client.lines[-1]
    assert isinstance(caught.value, ConnectionResetError) or caught.value.errno == 104


async def test_delays_of_sso_and_platform_are_separate() -> None:
    async with running_sandbox(options(slow=["platform=2s", "sso=500ms"])) as client:
        await client.ask_token(CREDENTIALS)
        assert client.slept == [0.5]
        await client.fhir("GET", "/metadata")
        assert client.slept == [0.5, 0.5, 2.0]


async def test_token_lifetime() -> None:
    async with running_sandbox(options(token_lifetime=5)) as client:
        assert (await client.ask_token(CREDENTIALS)).json["expires_in"] == 5
        assert (await client.fhir("GET", "/metadata")).status == 200
        client.clock.now += 5
        answer = await client.fhir("GET", "/metadata")
    assert answer.status == 401
    assert "expired" in answer.headers["WWW-Authenticate"]


async def test_a_share_of_valid_tokens_is_rejected() -> None:
    async with running_sandbox(options(reject_tokens=0.1), rng=FixedRandom(0.05, 0.5)) as client:
        statuses = [(await client.fhir("GET", "/metadata")).status for _ in range(4)]
    assert statuses == [401, 200, 401, 200]
    assert sum("refused on purpose" in line for line in client.lines) == 2
