"""Many credentials: how many token requests are under way, in which order, and when."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import pytest

from gateway.clock import TimeSource
from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import CredentialSettings, SsoSettings
from gateway.errors import GatewayError
from gateway.oauth.client_authentication import parse_client_secrets, public_client
from gateway.oauth.credential import Credential
from gateway.oauth.grants import RenewalGrant, UserTokenEndpoint
from gateway.oauth.token_endpoint import TokenRequestQueue
from gateway.oauth.tokens import Tokens, make_tokens
from gateway.secret import Secret
from tests.doubles import sso as answers
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso
from tests.oauth.harness import Bench, bench

pytestmark = pytest.mark.interpreted

MANY = 1000


@pytest.fixture
async def given() -> AsyncIterator[Bench]:
    """An SSO and a clock; requests wait for a token as long as the test."""
    async with bench(timeout=600) as made:
        yield made


def clients(given: Bench, count: int, **sso: float) -> Mapping[str, Tokens]:
    """The tokens of so many clients of the SSO."""
    names = [f"clinic-{number}" for number in range(count)]
    credentials = {
        name: Credential(
            endpoint=given.endpoint,
            settings=CredentialSettings(client_id=name),
            platform="https://platform.test/r5",
            name=name,
            authenticators=parse_client_secrets(name, Secret("planted"), in_header=False),
        )
        for name in names
    }
    return make_tokens(
        credentials,
        at_hand=given.at_hand,
        store=None,
        metrics=given.observer,  # type: ignore[arg-type] # a double
        audit=given.observer,  # type: ignore[arg-type] # a double
        sso=SsoSettings(token_url=given.sso.token_url, timeout=600, **sso),
        times=TimeSource(
            given.clock,
            given.clock.wall,
            given.clock.call_later,
            random.Random(17).random,  # noqa: S311 - the same jitter in every run
        ),
    )


async def close(tokens: Mapping[str, Tokens]) -> None:
    """Close them all."""
    for each in tokens.values():
        await each.close()


async def wait_until_idle(given: Bench, tokens: Mapping[str, Tokens]) -> None:
    """Return when no request is under way and no further one may begin before the clock moves."""
    while any(each.state().is_fetching for each in tokens.values()):
        seen = len(given.sso.requests)
        await asyncio.sleep(0.05)
        if not given.sso.open_requests and seen == len(given.sso.requests):
            return


async def test_a_thousand_credentials(given: Bench) -> None:
    """At most eight token requests are under way, and at most 200 begin in a second."""
    tokens = clients(given, MANY)
    given.sso.hold()
    for each in tokens.values():
        each.start()
    await given.sso.wait_for_requests(8)
    await asyncio.sleep(0.05)
    assert given.sso.open_requests == 8
    given.sso.release()
    for second in range(1, 6):
        await given.sso.wait_for_requests(200 * second)
        await wait_until_idle(given, tokens)
        assert len(given.sso.requests) == 200 * second
        await given.clock.advance(1.0)
    await wait_until_idle(given, tokens)
    assert all(each.state().is_valid for each in tokens.values())
    assert len(given.sso.requests) == MANY
    assert given.sso.max_concurrent == 8
    await close(tokens)


async def test_renewals_of_a_thousand_are_spread(given: Bench) -> None:
    """Tokens that were fetched together are renewed over a third of their life, before 80 %."""
    tokens = clients(given, MANY)
    token = await one_token(given)
    for each in tokens.values():
        given.at_hand[each.credential.store_key.name] = token
        each.start()
    due = [each.state().next_attempt_in for each in tokens.values()]
    assert all(135 < seconds <= 240 for seconds in due)
    in_a_second = Counter(int(seconds) for seconds in due)
    assert max(in_a_second.values()) <= 25
    await close(tokens)


async def one_token(given: Bench) -> object:
    """A token of 300 seconds that has just come."""
    given.tokens.fetch_now()
    await given.settled()
    return given.tokens.current()


async def test_a_reload_late_in_the_life_of_tokens_does_not_renew_all_at_once(
    given: Bench,
) -> None:
    """What is overdue by the new draw is spread over the time that is left."""
    tokens = clients(given, MANY)
    token = await one_token(given)
    for each in tokens.values():
        given.at_hand[each.credential.store_key.name] = token
    given.clock.now += 225
    for each in tokens.values():
        each.start()
    due = [each.state().next_attempt_in for each in tokens.values()]
    assert all(seconds <= 15 for seconds in due)
    assert max(Counter(int(seconds) for seconds in due).values()) <= 120
    await close(tokens)


async def test_who_is_waited_for_comes_first(given: Bench) -> None:
    """Of those in the queue, the credential that a request needs is fetched next."""
    tokens = clients(given, 40)
    given.sso.hold()
    for each in tokens.values():
        each.start()
    await given.sso.wait_for_requests(8)
    needed = ["clinic-39", "clinic-25", "clinic-30"]
    waiting = [asyncio.ensure_future(tokens[name].wait_for_token()) for name in needed]
    await asyncio.sleep(0)
    given.sso.release()
    await asyncio.gather(*waiting)
    asked = [request.form["client_id"] for request in given.sso.requests[8:11]]
    assert sorted(asked) == sorted(needed)
    await given.sso.wait_for_requests(40)
    await close(tokens)


async def test_a_refused_client_holds_up_nobody(given: Bench) -> None:
    """It gives its place back, and the others get their tokens."""
    tokens = clients(given, 20, max_requests=1)
    given.sso.script(answers.oauth_error("invalid_client", 401))
    for each in tokens.values():
        each.start()
    await given.sso.wait_for_requests(20)
    await wait_until_idle(given, tokens)
    assert [each.state().is_valid for each in tokens.values()].count(False) == 1
    assert given.sso.max_concurrent == 1
    await close(tokens)


async def test_a_wait_in_the_queue_ends_in_time() -> None:
    """A request waits at most `sso.timeout`, the queue included; its fetch goes on."""
    async with bench(timeout=0.05) as given:
        given.sso.hold()
        tokens = clients(given, 9)
        for each in tokens.values():
            each._sso = given.settings
            each.start()
        await given.sso.wait_for_requests(8)
        with pytest.raises(GatewayError, match="sso-unavailable"):
            await tokens["clinic-8"].wait_for_token()
        given.sso.release()
        await given.sso.wait_for_requests(9)
        await wait_until_idle(given, tokens)
        assert tokens["clinic-8"].state().is_valid
        await close(tokens)


async def test_closing_leaves_the_queue(given: Bench) -> None:
    """One that is closed while it waits or is fetched gives its place back."""
    tokens = clients(given, 10, max_requests=2)
    given.sso.hold()
    for each in tokens.values():
        each.start()
    await given.sso.wait_for_requests(2)
    await tokens["clinic-0"].close()
    await tokens["clinic-5"].close()
    await given.sso.wait_for_requests(3)
    given.sso.release()
    await given.sso.wait_for_requests(9)
    await wait_until_idle(given, tokens)
    assert "clinic-5" not in {request.form["client_id"] for request in given.sso.requests}
    assert sum(each.state().is_valid for each in tokens.values()) == 8
    await close(tokens)


async def test_two_versions_of_the_settings_share_the_limit() -> None:
    """While a reload takes over, both together keep to `sso.max_requests`, and to a new value."""
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


async def test_users_share_the_limit_and_come_first(given: Bench) -> None:
    """A sign-in waits for a place like a credential, but before those that nobody waits for."""
    queue = TokenRequestQueue(1, TimeSource())
    user = UserTokenEndpoint(
        endpoint=given.endpoint,
        authentications=[public_client("web")],
        login=LoginSettings(),
        clock=given.clock,
        wall_clock=given.clock.wall,
        queue=queue,
    )
    given.sso.hold()
    async with asyncio.TaskGroup() as tasks, AsyncExitStack() as background:
        first = queue.admission(lambda: False)
        await background.enter_async_context(first)
        later = tasks.create_task(user.refresh(RenewalGrant(Secret("r1"))))
        waiting = tasks.create_task(enter(queue))
        await asyncio.sleep(0.05)
        assert given.sso.requests == []
        await background.aclose()
        await given.sso.wait_for_requests(1)
        assert not waiting.done()
        given.sso.release()
    assert later.result().token.reveal() == "token-1"


async def enter(queue: TokenRequestQueue) -> None:
    """Wait for a place that is not urgent, and give it back."""
    async with queue.admission(lambda: False):
        pass
