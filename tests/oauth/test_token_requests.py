"""Many credentials: how many token requests are under way, in which order, and when."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from gateway.clock import TimeSource
from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import SsoSettings
from gateway.errors import GatewayError
from gateway.oauth.client_authentication import public_client
from gateway.oauth.grants import RenewalGrant, UserTokenEndpoint
from gateway.oauth.token_endpoint import TokenRequestQueue
from gateway.oauth.tokens import Tokens
from gateway.secret import Secret
from tests.doubles import sso as answers
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.oauth.harness import Setup, make_setup, tokens_of

pytestmark = pytest.mark.interpreted

MANY = 1000


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    """An SSO and a clock; requests wait for a token as long as the test."""
    async with make_setup(timeout=600) as made:
        yield made


def clients(setup: Setup, count: int, **sso: float) -> Mapping[str, Tokens]:
    """Return tokens of so many clients."""
    names = [f"clinic-{number}" for number in range(count)]
    return tokens_of(
        {name: setup.source(name=name, client=name) for name in names},
        clock=setup.clock,
        observer=setup.observer,
        at_hand=setup.at_hand,
        sso=SsoSettings(token_url=setup.sso.token_url, timeout=600, **sso),
    )


async def close(tokens: Mapping[str, Tokens]) -> None:
    for each in tokens.values():
        await each.close()


async def wait_until_idle(setup: Setup, tokens: Mapping[str, Tokens]) -> None:
    """Return when no request is under way and no further one may begin before the clock moves."""
    while any(each.state().is_fetching for each in tokens.values()):
        seen = len(setup.sso.requests)
        await asyncio.sleep(0.05)
        if not setup.sso.open_requests and seen == len(setup.sso.requests):
            return


async def test_token_requests_of_many_credentials_are_limited(setup: Setup) -> None:
    tokens = clients(setup, MANY)
    setup.sso.hold()
    for each in tokens.values():
        each.start()
    await setup.sso.wait_for_requests(8)
    await asyncio.sleep(0.05)
    assert setup.sso.open_requests == 8
    setup.sso.release()
    for second in range(1, 6):
        await setup.sso.wait_for_requests(200 * second)
        await wait_until_idle(setup, tokens)
        assert len(setup.sso.requests) == 200 * second
        await setup.clock.advance(1.0)
    await wait_until_idle(setup, tokens)
    assert all(each.state().is_valid for each in tokens.values())
    assert len(setup.sso.requests) == MANY
    assert setup.sso.max_concurrent == 8
    await close(tokens)


async def test_refreshes_of_many_credentials_are_spread(setup: Setup) -> None:
    tokens = clients(setup, MANY)
    setup.sso.respond(answers.token("short", expires_in=30))
    token = await one_token(setup)
    for each in tokens.values():
        setup.at_hand[each.credential.store_key.name] = token
        each.start()
    due = [each.state().next_attempt_in for each in tokens.values()]
    assert all(18 <= seconds <= 27 for seconds in due)
    # From 60 to 90 % of the lifetime.
    in_a_second = Counter(int(seconds) for seconds in due)
    assert max(in_a_second.values()) <= 1.5 * MANY / 9
    await close(tokens)


async def one_token(setup: Setup) -> object:
    setup.tokens.fetch_now()
    await setup.settled()
    return setup.tokens.current()


async def test_refreshes_after_a_reload_are_spread(
    setup: Setup,
) -> None:
    tokens = clients(setup, MANY)
    token = await one_token(setup)
    for each in tokens.values():
        setup.at_hand[each.credential.store_key.name] = token
    setup.clock.now += 255
    for each in tokens.values():
        each.start()
    due = [each.state().next_attempt_in for each in tokens.values()]
    assert all(seconds <= 15 for seconds in due)
    assert max(Counter(int(seconds) for seconds in due).values()) <= 120
    await close(tokens)


async def test_credentials_with_waiting_requests_come_first(setup: Setup) -> None:
    tokens = clients(setup, 40)
    setup.sso.hold()
    for each in tokens.values():
        each.start()
    await setup.sso.wait_for_requests(8)
    needed = ["clinic-39", "clinic-25", "clinic-30"]
    waiting = [asyncio.ensure_future(tokens[name].wait_for_token()) for name in needed]
    await asyncio.sleep(0)
    setup.sso.release()
    await asyncio.gather(*waiting)
    asked = [request.form["client_id"] for request in setup.sso.requests[8:11]]
    assert sorted(asked) == sorted(needed)
    await setup.sso.wait_for_requests(40)
    await close(tokens)


async def test_a_rejected_client_does_not_delay_others(setup: Setup) -> None:
    tokens = clients(setup, 20, max_requests=1)
    setup.sso.script(answers.oauth_error("invalid_client", 401))
    for each in tokens.values():
        each.start()
    await setup.sso.wait_for_requests(20)
    await wait_until_idle(setup, tokens)
    assert [each.state().is_valid for each in tokens.values()].count(False) == 1
    assert setup.sso.max_concurrent == 1
    await close(tokens)


async def test_waiting_in_the_queue_times_out() -> None:
    async with make_setup(timeout=0.05) as setup:
        setup.sso.hold()
        tokens = clients(setup, 9)
        for each in tokens.values():
            each._sso = setup.settings
            each.start()
        await setup.sso.wait_for_requests(8)
        with pytest.raises(GatewayError, match="sso-unavailable"):
            await tokens["clinic-8"].wait_for_token()
        setup.sso.release()
        await setup.sso.wait_for_requests(9)
        await wait_until_idle(setup, tokens)
        assert tokens["clinic-8"].state().is_valid
        await close(tokens)


async def test_a_queue_that_is_too_slow_is_logged_once(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    """With the setting that makes it faster."""
    tokens = clients(setup, 30)
    setup.sso.hold()
    for each in tokens.values():
        each.start()
    await setup.sso.wait_for_requests(8)
    await setup.clock.advance(31.0)
    setup.sso.release()
    await setup.sso.wait_for_requests(30)
    await wait_until_idle(setup, tokens)
    told = [
        line.getMessage()
        for line in caplog.records
        if "a token request waited" in line.getMessage()
    ]
    assert len(told) == 1
    assert "sso.max_requests (8)" in told[0]
    await close(tokens)


async def test_closing_cancels_queued_requests(setup: Setup) -> None:
    tokens = clients(setup, 10, max_requests=2)
    setup.sso.hold()
    for each in tokens.values():
        each.start()
    await setup.sso.wait_for_requests(2)
    await tokens["clinic-0"].close()
    await tokens["clinic-5"].close()
    await setup.sso.wait_for_requests(3)
    setup.sso.release()
    await setup.sso.wait_for_requests(9)
    await wait_until_idle(setup, tokens)
    assert "clinic-5" not in {request.form["client_id"] for request in setup.sso.requests}
    assert sum(each.state().is_valid for each in tokens.values()) == 8
    await close(tokens)


async def test_two_versions_of_the_settings_share_the_limit() -> None:
    names = [f"clinic-{number}" for number in range(12)]
    secrets = {name: {"client_id": name, "client_secret": "a"} for name in (*names, "default")}
    callers = [{"name": name, "api_key": f"key-{name}", "credential": name} for name in names]
    async with (
        Sso() as sso,
        Platform() as platform,
        running_gateway(
            platform.url,
            sso.token_url,
            sso={"max_requests": 2},
            credentials=secrets,
            callers=callers,
        ) as gateway,
    ):
        sso.hold()
        await sso.wait_for_requests(2)
        settings, cores = gateway.settings, gateway.gateway._cores
        # An exchange in flight keeps the old version and its token requests.
        first = cores.current
        first.route.active_uses.enter()
        renamed = {
            name: each.model_copy(update={"client_id": f"new-{name}"})
            for name, each in settings.credentials.items()
        }
        await gateway.gateway.reload(settings.model_copy(update={"credentials": renamed}))
        await asyncio.sleep(0.05)
        assert sso.open_requests == 2
        three = settings.sso.model_copy(update={"max_requests": 3})
        await gateway.gateway.reload(
            settings.model_copy(update={"credentials": renamed, "sso": three})
        )
        await sso.wait_for_requests(3)
        await asyncio.sleep(0.05)
        assert sso.open_requests == 3
        sso.release()
        states = cores.current.token_states
        while not all(each.is_valid for each in states().values()):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)
        first.route.active_uses.leave()
        assert sso.max_concurrent == 3


async def test_users_share_the_limit_and_come_first(setup: Setup) -> None:
    queue = TokenRequestQueue(1, TimeSource())
    user = UserTokenEndpoint(
        endpoint=setup.endpoint,
        authentications=[public_client("web")],
        login=LoginSettings(),
        clock=setup.clock,
        wall_clock=setup.clock.wall,
        queue=queue,
    )
    setup.sso.hold()
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as background:
        first = queue.admission(lambda: False)
        await background.enter_async_context(first)
        later = tasks.create_task(user.refresh(RenewalGrant(Secret("r1"))))
        waiting = tasks.create_task(enter(queue))
        await asyncio.sleep(0.05)
        assert setup.sso.requests == []
        await background.aclose()
        await setup.sso.wait_for_requests(1)
        assert not waiting.done()
        setup.sso.release()
    assert later.result().token.reveal() == "token-1"


async def enter(queue: TokenRequestQueue) -> None:
    """Wait for a place that is not urgent, and give it back."""
    async with queue.admission(lambda: False):
        pass
