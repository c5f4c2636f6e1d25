"""What happens after the platform answered 401 to a token."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import GatewayError
from gateway.oauth.token_response import AccessToken
from tests.doubles import sso as answers
from tests.oauth.harness import Bench

pytestmark = pytest.mark.interpreted


async def replaced(given: Bench, rejected: AccessToken) -> str:
    """The value of the token to try next, or the reason of the error."""
    try:
        return (await given.tokens.replace_rejected(rejected)).reveal()
    except GatewayError as error:
        return error.reason.code


async def reject_twice(given: Bench, token: AccessToken) -> AccessToken:
    """One request whose token and new token are both refused; the new token."""
    fresh = await given.tokens.replace_rejected(token)
    given.tokens.on_fresh_token_rejected(fresh)
    return fresh


def asked(given: Bench) -> int:
    """How often the SSO was asked."""
    return len(given.sso.requests)


async def test_dropped_before_the_new_one_is_there(given: Bench) -> None:
    """While a new token is fetched, none gets the rejected one; all wait for the same."""
    token = await given.obtain()
    given.sso.hold()
    replacing = asyncio.ensure_future(given.tokens.replace_rejected(token))
    await given.sso.wait_for_requests(2)
    assert given.current is None
    waiting = asyncio.ensure_future(given.obtain())
    given.sso.release()
    assert await replacing == await waiting
    assert asked(given) == 2


async def test_latecomer(given: Bench) -> None:
    """A request that learns late that its token was rejected gets the one in use by then."""
    token = await given.obtain()
    await replaced(given, token)
    assert await replaced(given, token) == "token-2"
    given.tokens.invalidate(token)
    assert given.current == "token-2"
    assert asked(given) == 2


async def test_equal_by_value(given: Bench) -> None:
    """The rejected token is recognised by its value, not by identity."""
    await given.obtain()
    same = AccessToken("token-1", received_at=0, lifetime=1, wall_expiry=0)
    assert await replaced(given, same) == "token-2"


async def test_second_rejection_pauses(given: Bench) -> None:
    """After a second 401 another one is final at once, for a second, and nothing is fetched."""
    fresh = await reject_twice(given, await given.obtain())
    for _ in range(20):
        assert given.current == "token-2"
        assert await replaced(given, fresh) == "token-rejected"
    with pytest.raises(GatewayError) as caught:
        await given.tokens.replace_rejected(fresh)
    assert caught.value.upstream_status == 401
    await given.clock.advance(0.9)
    assert await replaced(given, fresh) == "token-rejected"
    assert asked(given) == 2
    await given.clock.advance(0.2)
    assert await replaced(given, fresh) == "token-3"
    assert asked(given) == 3


async def test_pauses_grow(given: Bench) -> None:
    """The pauses double from one second to thirty."""
    given.sso.respond(None)
    token = await given.obtain()
    for pause in (1, 2, 4, 8, 16, 30, 30):
        token = await reject_twice(given, token)
        await given.pass_time(pause - 0.1, step=5)
        assert await replaced(given, token) == "token-rejected"
        await given.pass_time(0.2)
        token = given.tokens.current()


async def test_accepted_ends_the_pause(given: Bench) -> None:
    """The first request that the platform accepts ends the pause and forgets its length."""
    fresh = await reject_twice(given, await given.obtain())
    await given.clock.advance(1.1)
    fresh = await reject_twice(given, fresh)
    given.tokens.on_token_accepted(fresh)
    assert not given.state.is_rejected
    await given.clock.advance(1.1)
    fresh = await reject_twice(given, fresh)
    assert given.state.is_rejected
    await given.clock.advance(1.1)
    assert not given.state.is_rejected


async def test_other_token_accepted(given: Bench) -> None:
    """That the platform accepts an older token says nothing of the one it refused."""
    token = await given.obtain()
    await reject_twice(given, token)
    given.tokens.on_token_accepted(token)
    assert given.state.is_rejected


async def test_many_second_rejections_are_one(given: Bench) -> None:
    """Fifty requests that are refused twice at the same time do not add up to a long pause."""
    fresh = await given.tokens.replace_rejected(await given.obtain())
    for _ in range(50):
        given.tokens.on_fresh_token_rejected(fresh)
    await given.clock.advance(1.1)
    assert await replaced(given, fresh) == "token-3"


async def test_platform_that_refuses_everything(given: Bench) -> None:
    """However many requests a platform refuses, the SSO is asked once for each pause."""
    given.tokens.start()
    await given.settled()
    for _ in range(400):
        token = await given.obtain()
        if (await replaced(given, token)) != "token-rejected" and given.current != token.reveal():
            # Another request sends the new token first, and is refused as its first 401.
            assert await replaced(given, given.tokens.current()) == "token-rejected"
        await given.clock.advance(0.1)
    assert 5 <= asked(given) <= 7


async def test_same_token_again(given: Bench) -> None:
    """An SSO that insists on a token is not asked in a loop, and the token is used on."""
    given.sso.respond(answers.token("same"))
    token = await given.obtain()
    assert await replaced(given, token) == "token-rejected"
    assert asked(given) == 2
    assert await replaced(given, token) == "token-rejected"
    assert asked(given) == 2
    assert given.state.is_rejected
    assert given.current == "same"
    given.tokens.on_token_accepted(token)
    assert not given.state.is_rejected


async def test_drops_do_not_hammer(given: Bench) -> None:
    """Uploads that a platform refuses one after the other begin a pause as well."""
    for _ in range(20):
        given.tokens.invalidate(await given.obtain())
        await given.settled()
    assert asked(given) == 2
    assert given.state.is_rejected


async def test_sso_down_after_rejection(given: Bench) -> None:
    """With the SSO down a rejected token is not used again: 503, then a new one when it is back."""
    token = await given.obtain()
    given.sso.script(answers.status(503))
    assert await replaced(given, token) == "sso-unavailable"
    assert given.current is None
    assert given.observer.expiries[-1] == ("default", 0.0)
    assert not given.state.is_valid
    given.tokens.invalidate(token)
    assert await replaced(given, token) == "sso-unavailable"
    assert asked(given) == 2
    await given.pass_time(1)
    assert given.current == "token-2"


async def test_rejected_during_renewal(given: Bench) -> None:
    """A renewal under way when the token is rejected serves for both."""
    token = await given.obtain()
    given.sso.hold()
    await given.clock.advance(245)
    await given.sso.wait_for_requests(2)
    replacing = asyncio.ensure_future(given.tokens.replace_rejected(token))
    given.sso.release()
    assert (await replacing).reveal() == "token-2"
    assert asked(given) == 2


async def test_renewal_during_pause(given: Bench) -> None:
    """The pause concerns forced fetches only: a token is still renewed at its time."""
    given.sso.respond(answers.token("short", expires_in=0.5))
    await reject_twice(given, AccessToken("other", received_at=0, lifetime=1, wall_expiry=0))
    before = asked(given)
    await given.pass_time(0.9)
    assert given.state.is_rejected
    assert asked(given) > before


async def test_forced_fetches_keep_their_distance(given: Bench) -> None:
    """A 401 just after a forced fetch gets its new token too, but not before a second is over."""
    fresh = await given.tokens.replace_rejected(await given.obtain())
    given.tokens.on_token_accepted(fresh)
    replacing = asyncio.ensure_future(given.tokens.replace_rejected(fresh))
    await given.clock.advance(0.9)
    assert not replacing.done()
    assert asked(given) == 2
    await given.clock.advance(0.2)
    assert (await replacing).reveal() == "token-3"


@pytest.mark.parametrize(("seconds", "meanwhile"), [(0.9, "token-1"), (1.0, None)])
async def test_accepted_some_time_ago(given: Bench, seconds: float, meanwhile: str | None) -> None:
    """A token that the platform took in the last second is not withdrawn from others by one 401."""
    token = await given.obtain()
    given.tokens.on_token_accepted(token)
    await given.clock.advance(seconds)
    given.sso.hold()
    replacing = asyncio.ensure_future(given.tokens.replace_rejected(token))
    await given.sso.wait_for_requests(2)
    assert given.current == meanwhile
    given.sso.release()
    assert (await replacing).reveal() == "token-2"
    assert given.current == "token-2"


async def test_what_another_token_was_is_nothing(given: Bench) -> None:
    """A new token does not profit from its predecessor's having been accepted."""
    token = await given.obtain()
    given.tokens.on_token_accepted(token)
    fresh = await given.tokens.replace_rejected(token)
    await given.clock.advance(0.5)
    assert await replaced(given, fresh) == "token-rejected"
    assert given.state.is_rejected


async def test_one_refusal_while_the_sso_is_down(given: Bench) -> None:
    """With the SSO down, one caller's 401 does not take from others what works for them."""
    token = await given.obtain()
    given.tokens.on_token_accepted(token)
    given.sso.respond(answers.status(503))
    assert await replaced(given, token) == "sso-unavailable"
    assert given.current == "token-1"
    given.tokens.on_token_accepted(token)
    assert await replaced(given, token) == "sso-unavailable"
    assert asked(given) == 2
    assert given.state.next_attempt_in is not None


async def test_upload_refused_in_that_time(given: Bench) -> None:
    """A refused upload withdraws even a token that was just taken: the next request has another."""
    token = await given.obtain()
    given.tokens.on_token_accepted(token)
    given.tokens.invalidate(token)
    assert given.current is None
    fresh = await given.obtain()
    assert fresh.reveal() == "token-2"
    given.tokens.on_token_accepted(fresh)
    given.tokens.invalidate(fresh)
    assert given.current == "token-2"
    await given.pass_time(1.1)
    assert given.current == "token-3"


async def test_closing_ends_the_wait(given: Bench) -> None:
    """A request that waits for its turn gets shutting-down."""
    fresh = await given.tokens.replace_rejected(await given.obtain())
    given.tokens.on_token_accepted(fresh)
    replacing = asyncio.ensure_future(replaced(given, fresh))
    await given.clock.advance(0.1)
    await given.tokens.close()
    assert await replacing == "shutting-down"


def lifetime_warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The lines about the setting."""
    return [each.message for each in caplog.records if "default_token_lifetime" in each.message]


@pytest.mark.parametrize("pause", [0.0, 2.0], ids=["with traffic", "without"])
async def test_an_assumed_lifetime_that_is_too_long_is_told_once(
    given: Bench, caplog: pytest.LogCaptureFixture, pause: float
) -> None:
    """The platform's 401 heals it each time, but costs a request: the setting is to be mended."""
    given.sso.script(*(answers.token(f"t{number}", expires_in=None) for number in range(5)))
    token = await given.obtain()
    for _ in range(3):
        given.clock.now += 20
        given.tokens.on_token_accepted(token)
        given.clock.now += pause
        token = await given.tokens.replace_rejected(token)
        given.tokens.on_token_accepted(token)
    assert lifetime_warnings(caplog) == [
        f"credential default: the platform refused a token {20 + pause:g} s after the SSO gave it: "
        "sso.default_token_lifetime (5 min) seems to be longer than its tokens live"
    ]


@pytest.mark.parametrize("expires_in", [300, None])
async def test_another_refusal_does_not_concern_the_lifetime(
    given: Bench, caplog: pytest.LogCaptureFixture, expires_in: int | None
) -> None:
    """Nothing is said where the SSO named the lifetime, or the platform never took the token."""
    given.sso.respond(answers.token("same", expires_in=expires_in))
    token = await given.obtain()
    if expires_in is not None:
        given.tokens.on_token_accepted(token)
    given.clock.now += 20
    given.tokens.invalidate(token)
    assert lifetime_warnings(caplog) == []
