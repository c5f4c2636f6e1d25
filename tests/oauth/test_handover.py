"""Handover from one `Tokens` object to another after a reload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.errors import GatewayError
from gateway.oauth.tokens import Tokens
from tests.doubles import sso as answers
from tests.doubles.clock import run_pending_tasks
from tests.oauth.harness import Setup, make_setup

pytestmark = pytest.mark.interpreted


@pytest.fixture
async def predecessor() -> AsyncIterator[Setup]:
    """A token of 100 seconds is in use."""
    async with make_setup() as made:
        made.sso.script(answers.token("first", expires_in=100))
        made.tokens.start()
        await made.settled()
        yield made


async def replace_token(setup: Setup) -> None:
    """Begin a request for another token, which the SSO holds."""
    token = setup.tokens.current()
    assert token is not None
    setup.sso.hold()
    setup.tokens.invalidate(token)
    await setup.sso.wait_for_requests(2)


def hand_over(setup: Setup, client: str = "id") -> Tokens:
    """Start the tokens of new settings, and return those of the settings before."""
    before, setup.tokens = setup.tokens, setup.made(client=client)["default"]
    setup.tokens.start(before)
    return before


async def test_a_due_token_is_taken_over_while_the_sso_is_down(predecessor: Setup) -> None:
    predecessor.sso.respond(answers.status(503))
    await predecessor.pass_time(85)
    token = predecessor.tokens.current()
    assert token is not None
    predecessor.tokens.stop_renewing()
    successor = predecessor.made()["default"]
    successor.start(predecessor.tokens)
    assert successor.current() == token
    await successor.close()


async def test_a_token_taken_over_is_refreshed_at_its_time(predecessor: Setup) -> None:
    """The successor asks no sooner than it would have, and not later."""
    token = predecessor.tokens.current()
    assert token is not None
    predecessor.tokens.stop_renewing()
    before = hand_over(predecessor)
    assert len(predecessor.sso.requests) == 1
    await predecessor.pass_time(59)
    assert len(predecessor.sso.requests) == 1
    await predecessor.pass_time(32)
    assert len(predecessor.sso.requests) == 2
    assert predecessor.current == "token-1"
    await before.close()


async def test_tokens_are_fetched_on_request_after_the_handover(predecessor: Setup) -> None:
    predecessor.tokens.stop_renewing()
    await predecessor.pass_time(99.5, step=1.0)
    assert len(predecessor.sso.requests) == 1
    assert (await predecessor.obtain()).reveal() == "token-1"
    await predecessor.pass_time(500, step=10.0)
    assert len(predecessor.sso.requests) == 2


async def test_a_successor_waits_for_the_request_under_way_and_takes_its_token(
    predecessor: Setup,
) -> None:
    """The settings before still need the token for their exchanges; both are one credential."""
    await replace_token(predecessor)
    predecessor.tokens.stop_renewing()
    before = hand_over(predecessor)
    await run_pending_tasks()
    await asyncio.sleep(0.05)
    assert len(predecessor.sso.requests) == 2
    predecessor.sso.release()
    await predecessor.settled()
    assert (len(predecessor.sso.requests), predecessor.current) == (2, "token-1")
    await before.close()


async def test_a_successor_asks_once_the_request_of_before_is_given_up(predecessor: Setup) -> None:
    await replace_token(predecessor)
    before = hand_over(predecessor)
    await before.close()
    await predecessor.sso.wait_for_requests(3)
    predecessor.sso.release()
    await predecessor.settled()
    assert predecessor.current is not None


async def test_a_token_refused_meanwhile_is_not_taken_over(predecessor: Setup) -> None:
    """The request under way gives a token that the platform has refused."""
    rejected = predecessor.tokens.current()
    assert rejected is not None
    predecessor.sso.script(answers.token("first", expires_in=100))
    predecessor.sso.hold()
    predecessor.tokens.fetch_now()
    await predecessor.sso.wait_for_requests(2)
    before = hand_over(predecessor)
    predecessor.tokens.invalidate(rejected)
    predecessor.sso.release()
    await predecessor.settled()
    assert (len(predecessor.sso.requests), predecessor.current) == (3, "token-1")
    await before.close()


async def test_a_changed_client_does_not_wait(predecessor: Setup) -> None:
    await replace_token(predecessor)
    before = hand_over(predecessor, client="another")
    await predecessor.sso.wait_for_requests(3)
    predecessor.sso.release()
    await predecessor.settled()
    await before.close()


def logged(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (record.levelname, record.message.partition(";")[0].partition(" at ")[0])
        for record in caplog.records
        if record.message.startswith("credential default")
    ]


REFUSED = ("ERROR", "credential default: the SSO")
AGAIN = ("INFO", "credential default: the SSO gives tokens again")


async def test_a_rejected_client_is_logged_as_an_error_at_each_attempt(
    predecessor: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    predecessor.sso.respond(answers.oauth_error("invalid_client", 401))
    await predecessor.pass_time(101, step=1.0)
    assert logged(caplog) == [REFUSED]
    for _ in range(5):
        with pytest.raises(GatewayError, match="token-refused"):
            await predecessor.obtain()
    assert logged(caplog) == [REFUSED]
    await predecessor.pass_time(66, step=1.0)
    assert logged(caplog) == [REFUSED] * 2
    predecessor.sso.respond(None)
    await predecessor.pass_time(66, step=1.0)
    assert logged(caplog) == [REFUSED, REFUSED, AGAIN]
    await predecessor.pass_time(300, step=1.0)
    assert logged(caplog) == [REFUSED, REFUSED, AGAIN]


async def test_an_outage_is_logged_as_a_warning(
    predecessor: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    predecessor.sso.script(answers.status(503), answers.http(403))
    await predecessor.pass_time(90)
    assert logged(caplog) == [("WARNING", "credential default: the SSO")] * 2 + [AGAIN]


@pytest.mark.parametrize("refused", [1, 2])
async def test_a_logged_failure_is_handed_over(
    predecessor: Setup, caplog: pytest.LogCaptureFixture, refused: int
) -> None:
    caplog.set_level("INFO")
    predecessor.sso.script(*[answers.oauth_error("invalid_client", 401)] * refused)
    await predecessor.pass_time(101, step=1.0)
    for _ in range(refused):
        predecessor.tokens.stop_renewing()
        successor = predecessor.made()["default"]
        successor.start(predecessor.tokens)
        await predecessor.tokens.close()
        predecessor.tokens = successor
        await predecessor.settled()
    assert logged(caplog) == [REFUSED] * refused + [AGAIN]


async def test_a_first_token_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    async with make_setup() as setup:
        await setup.obtain()
    assert logged(caplog) == []
