"""How one `Tokens` object takes over from another when the settings are exchanged."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import GatewayError
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
    old.sso.respond(answers.status(503))
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


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """The levels and beginnings of the lines about the credential."""
    return [
        (record.levelname, record.message.partition(";")[0].partition(" at ")[0])
        for record in caplog.records
        if record.message.startswith("credential default")
    ]


REFUSED = ("ERROR", "credential default: the SSO")
AGAIN = ("INFO", "credential default: the SSO gives tokens again")


async def test_a_refused_client_is_an_error_at_each_attempt(
    old: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Without traffic it is told at each pause, not for each request; that it works again once."""
    caplog.set_level("INFO")
    old.sso.respond(answers.oauth_error("invalid_client", 401))
    await old.pass_time(101, step=1.0)
    assert said(caplog) == [REFUSED]
    for _ in range(5):
        with pytest.raises(GatewayError, match="token-refused"):
            await old.obtain()
    assert said(caplog) == [REFUSED]
    await old.pass_time(66, step=1.0)
    assert said(caplog) == [REFUSED] * 2
    old.sso.respond(None)
    await old.pass_time(66, step=1.0)
    assert said(caplog) == [REFUSED, REFUSED, AGAIN]
    await old.pass_time(300, step=1.0)
    assert said(caplog) == [REFUSED, REFUSED, AGAIN]


async def test_an_outage_is_a_warning(old: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """It passes by itself; that it has passed is told once."""
    caplog.set_level("INFO")
    old.sso.script(answers.status(503), answers.http(403))
    await old.pass_time(90)
    assert said(caplog) == [("WARNING", "credential default: the SSO")] * 2 + [AGAIN]


@pytest.mark.parametrize("refused", [1, 2])
async def test_a_new_object_knows_that_a_failure_was_told(
    old: Bench, caplog: pytest.LogCaptureFixture, refused: int
) -> None:
    """A changed secret file replaces the tokens, once or twice; the end is told nevertheless."""
    caplog.set_level("INFO")
    old.sso.script(*[answers.oauth_error("invalid_client", 401)] * refused)
    await old.pass_time(101, step=1.0)
    for _ in range(refused):
        old.tokens.stop_renewing()
        successor = old.made()["default"]
        successor.start(old.tokens)
        await old.tokens.close()
        old.tokens = successor
        await old.settled()
    assert said(caplog) == [REFUSED] * refused + [AGAIN]


async def test_a_first_token_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is said again where nothing had failed."""
    caplog.set_level("INFO")
    async with bench() as given:
        await given.obtain()
    assert said(caplog) == []
