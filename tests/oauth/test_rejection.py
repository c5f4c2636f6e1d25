"""What happens after the platform answered 401 to a token."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import GatewayError
from gateway.oauth.token_response import AccessToken
from tests.doubles import sso as answers
from tests.oauth.harness import Setup

pytestmark = pytest.mark.interpreted


async def replaced(setup: Setup, rejected: AccessToken) -> str:
    """The value of the token to try next, or the reason of the error."""
    try:
        return (await setup.tokens.replace_rejected(rejected)).reveal()
    except GatewayError as error:
        return error.reason.code


async def reject_twice(setup: Setup, token: AccessToken) -> AccessToken:
    """Send a request whose token and new token are both rejected. Return the new token."""
    fresh = await setup.tokens.replace_rejected(token)
    setup.tokens.on_fresh_token_rejected(fresh)
    return fresh


def token_request_count(setup: Setup) -> int:
    return len(setup.sso.requests)


async def test_a_rejected_token_is_dropped_at_once(setup: Setup) -> None:
    token = await setup.obtain()
    setup.sso.hold()
    replacing = asyncio.ensure_future(setup.tokens.replace_rejected(token))
    await setup.sso.wait_for_requests(2)
    assert setup.current is None
    waiting = asyncio.ensure_future(setup.obtain())
    setup.sso.release()
    assert await replacing == await waiting
    assert token_request_count(setup) == 2


async def test_a_late_rejection_gets_the_token_in_use(setup: Setup) -> None:
    token = await setup.obtain()
    await replaced(setup, token)
    # A forced fetch would be permitted again.
    await setup.clock.advance(1.1)
    assert await replaced(setup, token) == "token-2"
    setup.tokens.invalidate(token)
    assert setup.current == "token-2"
    assert token_request_count(setup) == 2


async def test_a_rejected_token_is_recognised_by_its_value(setup: Setup) -> None:
    await setup.obtain()
    same = AccessToken("token-1", received_at=0, lifetime=1, wall_expiry=0)
    assert await replaced(setup, same) == "token-2"


async def test_a_second_rejection_starts_a_delay(setup: Setup) -> None:
    fresh = await reject_twice(setup, await setup.obtain())
    for _ in range(20):
        assert setup.current == "token-2"
        assert await replaced(setup, fresh) == "token-rejected"
    with pytest.raises(GatewayError) as caught:
        await setup.tokens.replace_rejected(fresh)
    assert caught.value.upstream_status == 401
    await setup.clock.advance(0.9)
    assert await replaced(setup, fresh) == "token-rejected"
    assert token_request_count(setup) == 2
    await setup.clock.advance(0.2)
    assert await replaced(setup, fresh) == "token-3"
    assert token_request_count(setup) == 3


async def test_a_first_rejection_of_a_new_token_is_replaced_once_more(setup: Setup) -> None:
    """The request that the new token was fetched for may have ended without using it."""
    fresh = await setup.tokens.replace_rejected(await setup.obtain())
    await setup.clock.advance(1.1)
    assert await replaced(setup, fresh) == "token-3"
    assert not setup.state.is_rejected


async def test_delays_double(setup: Setup) -> None:
    setup.sso.respond(None)
    token = await setup.obtain()
    for pause in (1, 2, 4, 8, 16, 30, 30):
        token = await reject_twice(setup, token)
        await setup.pass_time(pause - 0.1, step=5)
        assert await replaced(setup, token) == "token-rejected"
        await setup.pass_time(0.2)
        token = setup.tokens.current()


async def test_an_accepted_token_ends_the_delay(setup: Setup) -> None:
    fresh = await reject_twice(setup, await setup.obtain())
    await setup.clock.advance(1.1)
    fresh = await reject_twice(setup, fresh)
    setup.tokens.on_token_accepted(fresh)
    assert not setup.state.is_rejected
    await setup.clock.advance(1.1)
    fresh = await reject_twice(setup, fresh)
    assert setup.state.is_rejected
    await setup.clock.advance(1.1)
    assert not setup.state.is_rejected


async def test_an_accepted_older_token_does_not_end_the_delay(setup: Setup) -> None:
    token = await setup.obtain()
    await reject_twice(setup, token)
    setup.tokens.on_token_accepted(token)
    assert setup.state.is_rejected


async def test_concurrent_second_rejections_start_one_delay(setup: Setup) -> None:
    fresh = await setup.tokens.replace_rejected(await setup.obtain())
    for _ in range(50):
        setup.tokens.on_fresh_token_rejected(fresh)
    await setup.clock.advance(1.1)
    assert await replaced(setup, fresh) == "token-3"


async def test_the_sso_is_asked_once_for_each_delay(setup: Setup) -> None:
    setup.tokens.start()
    await setup.settled()
    for _ in range(400):
        token = await setup.obtain()
        if (await replaced(setup, token)) != "token-rejected" and setup.current != token.reveal():
            # Another request sends the new token first, and is refused as its first 401.
            assert await replaced(setup, setup.tokens.current()) == "token-rejected"
        await setup.clock.advance(0.1)
    assert 5 <= token_request_count(setup) <= 7


async def test_an_unchanged_token_is_used_without_a_loop(setup: Setup) -> None:
    setup.sso.respond(answers.token("same"))
    token = await setup.obtain()
    assert await replaced(setup, token) == "token-rejected"
    assert token_request_count(setup) == 2
    assert await replaced(setup, token) == "token-rejected"
    assert token_request_count(setup) == 2
    assert setup.state.is_rejected
    assert setup.current == "same"
    setup.tokens.on_token_accepted(token)
    assert not setup.state.is_rejected


async def test_invalidated_tokens_start_a_delay(setup: Setup) -> None:
    for _ in range(20):
        setup.tokens.invalidate(await setup.obtain())
        await setup.settled()
    assert token_request_count(setup) == 2
    assert setup.state.is_rejected


async def test_a_rejected_token_is_not_reused_while_the_sso_is_down(setup: Setup) -> None:
    token = await setup.obtain()
    setup.sso.script(answers.status(503))
    assert await replaced(setup, token) == "sso-unavailable"
    assert setup.current is None
    assert setup.observer.expiries[-1] == ("default", 0.0)
    assert not setup.state.is_valid
    setup.tokens.invalidate(token)
    assert await replaced(setup, token) == "sso-unavailable"
    assert token_request_count(setup) == 2
    await setup.pass_time(1)
    assert setup.current == "token-2"


async def test_a_refresh_in_flight_replaces_a_rejected_token(setup: Setup) -> None:
    token = await setup.obtain()
    setup.sso.hold()
    await setup.clock.advance(271)
    await setup.sso.wait_for_requests(2)
    replacing = asyncio.ensure_future(setup.tokens.replace_rejected(token))
    setup.sso.release()
    assert (await replacing).reveal() == "token-2"
    assert token_request_count(setup) == 2


async def test_a_delay_of_forced_fetches_does_not_delay_the_refresh(setup: Setup) -> None:
    setup.sso.respond(answers.token("short", expires_in=0.5))
    await reject_twice(setup, AccessToken("other", received_at=0, lifetime=1, wall_expiry=0))
    before = token_request_count(setup)
    await setup.pass_time(0.9)
    assert setup.state.is_rejected
    assert token_request_count(setup) > before


async def test_forced_fetches_are_a_second_apart(setup: Setup) -> None:
    fresh = await setup.tokens.replace_rejected(await setup.obtain())
    setup.tokens.on_token_accepted(fresh)
    replacing = asyncio.ensure_future(setup.tokens.replace_rejected(fresh))
    await setup.clock.advance(0.9)
    assert not replacing.done()
    assert token_request_count(setup) == 2
    await setup.clock.advance(0.2)
    assert (await replacing).reveal() == "token-3"


@pytest.mark.parametrize(("seconds", "meanwhile"), [(0.9, "token-1"), (1.0, None)])
async def test_a_recently_accepted_token_is_kept_after_one_401(
    setup: Setup, seconds: float, meanwhile: str | None
) -> None:
    token = await setup.obtain()
    setup.tokens.on_token_accepted(token)
    await setup.clock.advance(seconds)
    setup.sso.hold()
    replacing = asyncio.ensure_future(setup.tokens.replace_rejected(token))
    await setup.sso.wait_for_requests(2)
    assert setup.current == meanwhile
    setup.sso.release()
    assert (await replacing).reveal() == "token-2"
    assert setup.current == "token-2"


async def test_a_new_token_does_not_inherit_acceptance(setup: Setup) -> None:
    token = await setup.obtain()
    setup.tokens.on_token_accepted(token)
    fresh = await setup.tokens.replace_rejected(token)
    await setup.clock.advance(0.5)
    assert await replaced(setup, fresh) == "token-rejected"
    assert setup.state.is_rejected


async def test_one_401_keeps_the_token_while_the_sso_is_down(setup: Setup) -> None:
    token = await setup.obtain()
    setup.tokens.on_token_accepted(token)
    setup.sso.respond(answers.status(503))
    assert await replaced(setup, token) == "sso-unavailable"
    assert setup.current == "token-1"
    setup.tokens.on_token_accepted(token)
    assert await replaced(setup, token) == "sso-unavailable"
    assert token_request_count(setup) == 2
    assert setup.state.next_attempt_in is not None


async def test_a_rejected_upload_invalidates_a_recently_accepted_token(setup: Setup) -> None:
    token = await setup.obtain()
    setup.tokens.on_token_accepted(token)
    setup.tokens.invalidate(token)
    assert setup.current is None
    fresh = await setup.obtain()
    assert fresh.reveal() == "token-2"
    setup.tokens.on_token_accepted(fresh)
    setup.tokens.invalidate(fresh)
    assert setup.current == "token-2"
    await setup.pass_time(1.1)
    assert setup.current == "token-3"


async def test_closing_rejects_waiting_requests(setup: Setup) -> None:
    fresh = await setup.tokens.replace_rejected(await setup.obtain())
    setup.tokens.on_token_accepted(fresh)
    replacing = asyncio.ensure_future(replaced(setup, fresh))
    await setup.clock.advance(0.1)
    await setup.tokens.close()
    assert await replacing == "shutting-down"


def lifetime_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.message for each in caplog.records if "default_token_lifetime" in each.message]


@pytest.mark.parametrize("pause", [0.0, 2.0], ids=["with traffic", "without"])
async def test_a_default_lifetime_that_is_too_long_is_logged_once(
    setup: Setup, caplog: pytest.LogCaptureFixture, pause: float
) -> None:
    setup.sso.script(*(answers.token(f"t{number}", expires_in=None) for number in range(5)))
    token = await setup.obtain()
    for _ in range(3):
        setup.clock.now += 20
        setup.tokens.on_token_accepted(token)
        setup.clock.now += pause
        token = await setup.tokens.replace_rejected(token)
        setup.tokens.on_token_accepted(token)
    assert lifetime_warnings(caplog) == [
        f"credential default: the platform refused a token {20 + pause:g} s after the SSO gave it: "
        "sso.default_token_lifetime (5 min) seems to be longer than its tokens live"
    ]


@pytest.mark.parametrize("expires_in", [300, None])
async def test_other_rejections_are_not_logged_as_a_lifetime_problem(
    setup: Setup, caplog: pytest.LogCaptureFixture, expires_in: int | None
) -> None:
    setup.sso.respond(answers.token("same", expires_in=expires_in))
    token = await setup.obtain()
    if expires_in is not None:
        setup.tokens.on_token_accepted(token)
    setup.clock.now += 20
    setup.tokens.invalidate(token)
    assert lifetime_warnings(caplog) == []
