"""How one `Tokens` object takes over from another when the settings are exchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.doubles import sso as answers
from tests.oauth.harness import Bench, bench

pytestmark = pytest.mark.interpreted


@pytest.fixture
async def old() -> AsyncIterator[Bench]:
    """A token of 100 seconds is in use."""
    async with bench() as made:
        made.sso.script(answers.token("first", expires_in=100))
        made.tokens.start()
        await made.settled()
        yield made


async def test_a_token_that_is_due_is_kept_while_the_sso_is_down(old: Bench) -> None:
    """Due for renewal, so no longer taken from the store, but valid: the successor goes on."""
    old.sso.handle(answers.status(503))
    await old.pass_time(85)
    token = old.tokens.current()
    assert token is not None
    old.tokens.stop_renewing()
    successor = old.made()["default"]
    successor.start(old.tokens)
    assert successor.current() == token
    await successor.close()


async def test_a_kept_token_is_renewed_in_time(old: Bench) -> None:
    """The successor asks no sooner than it would have, and not later."""
    token = old.tokens.current()
    assert token is not None
    old.tokens.stop_renewing()
    before, old.tokens = old.tokens, old.made()["default"]
    old.tokens.start(before)
    assert len(old.sso.requests) == 1
    await old.pass_time(65)
    assert len(old.sso.requests) == 1
    await old.pass_time(16)
    assert len(old.sso.requests) == 2
    assert old.current == "token-1"
    await before.close()


async def test_who_stopped_renewing_still_serves(old: Bench) -> None:
    """Nothing is fetched ahead any more, but a request that needs a token gets one."""
    old.tokens.stop_renewing()
    await old.pass_time(99.5, step=1.0)
    assert len(old.sso.requests) == 1
    assert (await old.obtain()).reveal() == "token-1"
    await old.pass_time(500, step=10.0)
    assert len(old.sso.requests) == 2
