"""What goes wrong on purpose, and how it is asked for."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp
import pytest

from gateway.sandbox.options import Faults, SandboxOptions
from tests.sandbox.harness import CREDENTIALS, Dice, trial


def options(**how: object) -> SandboxOptions:
    """The options of a sandbox with faults as the command line names them."""
    return SandboxOptions(port=0, faults=Faults.parse(**how))  # type: ignore[arg-type]


def test_the_command_line_is_understood() -> None:
    """Each option becomes its field."""
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
def test_mistakes_are_explained(
    fail: Sequence[str], slow: Sequence[str], lifetime: float | None, share: float, text: str
) -> None:
    """A value that makes no sense is refused, naming the option."""
    with pytest.raises(ValueError, match=text.replace("-", r"\-")):
        Faults.parse(fail, slow, lifetime, share)


@pytest.mark.parametrize(
    ("status", "error"), [(400, "invalid_request"), (401, "invalid_client"), (503, "server_error")]
)
async def test_the_sso_fails_with_a_status(status: int, error: str) -> None:
    """With the OAuth error that goes with it, for every token request; the platform is as ever."""
    async with trial(options(fail=[f"sso={status}"])) as given:
        answer = await given.ask_token(CREDENTIALS)
        other = await given.ask("GET", given.sandbox.fhir_base_url + "/metadata")
    assert given.lines[0].endswith(f"{status}  failed on purpose")
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
    """With an OperationOutcome whose code goes with it; the SSO goes on."""
    async with trial(options(fail=[f"platform={status}"])) as given:
        answer = await given.fhir("GET", "/metadata")
    assert (answer.status, answer.issue["code"]) == (status, code)
    assert ["failed on purpose" in line for line in given.lines] == [False, True]


async def test_the_platform_fails_with_a_page() -> None:
    """`platform=html` gives what a proxy in front of a broken platform gives."""
    async with trial(options(fail=["platform=html"])) as given:
        answer = await given.fhir("GET", "/metadata")
    assert answer.status == 502
    assert answer.headers["Content-Type"].startswith("text/html")
    assert b"<h1>502" in answer.body


async def test_the_platform_resets_the_connection() -> None:
    """`platform=reset` ends the connection with RST before any byte of an answer."""
    async with trial(options(fail=["platform=reset"])) as given:
        with pytest.raises(aiohttp.ClientOSError) as caught:
            await given.fhir("GET", "/metadata")
        assert "connection reset" in given.lines[-1]
    assert isinstance(caught.value, ConnectionResetError) or caught.value.errno == 104


async def test_each_side_is_late_by_itself() -> None:
    """Delays are waited before the answer, for one side or the other."""
    async with trial(options(slow=["platform=2s", "sso=500ms"])) as given:
        await given.ask_token(CREDENTIALS)
        assert given.slept == [0.5]
        await given.fhir("GET", "/metadata")
        assert given.slept == [0.5, 0.5, 2.0]


async def test_tokens_can_be_short_lived() -> None:
    """A lifetime of 5 seconds is announced, and kept."""
    async with trial(options(token_lifetime=5)) as given:
        assert (await given.ask_token(CREDENTIALS)).json["expires_in"] == 5
        assert (await given.fhir("GET", "/metadata")).status == 200
        given.clock.now += 5
        answer = await given.fhir("GET", "/metadata")
    assert answer.status == 401
    assert "expired" in answer.headers["WWW-Authenticate"]


async def test_a_share_of_good_tokens_is_refused() -> None:
    """Which request meets it is decided by the dice; the token itself stays good."""
    async with trial(options(reject_tokens=0.1), rng=Dice(0.05, 0.5)) as given:
        statuses = [(await given.fhir("GET", "/metadata")).status for _ in range(4)]
    assert statuses == [401, 200, 401, 200]
    assert sum("refused on purpose" in line for line in given.lines) == 2
