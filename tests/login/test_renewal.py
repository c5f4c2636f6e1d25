"""The renewal of a person's token, with a clock that stands still and an SSO made by hand."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from gateway.clock import TimeSource
from gateway.config.operations_settings import LoginSettings
from gateway.config.outbound_settings import SsoSettings
from gateway.errors import GatewayError
from gateway.login.session_store import MemorySessionStore, Session, SignedInUser
from gateway.login.sessions import SessionManager
from gateway.login.user_tokens import SessionRenewals, UserTokens
from gateway.oauth.grants import RenewalGrant, UserTokenSet
from gateway.oauth.token_response import AccessToken, TokenRequestError
from gateway.secret import Secret
from tests.doubles.clock import FakeClock, run_pending_tasks

LIFETIME = 400.0


class Endpoint:
    """Answers refreshes by a script; counts them."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.script: deque[str | TokenRequestError] = deque()
        self.asked: list[RenewalGrant] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def refresh(self, renewal: RenewalGrant) -> UserTokenSet:
        """The next of the script."""
        self.asked.append(renewal)
        await self.gate.wait()
        answer = self.script.popleft()
        if isinstance(answer, TokenRequestError):
            raise answer
        return UserTokenSet(made(answer, self.clock), RenewalGrant(Secret(f"{answer}-refresh")))


def made(value: str, clock: FakeClock) -> AccessToken:
    """A token that has just come."""
    return AccessToken(value, received_at=clock(), lifetime=LIFETIME, wall_expiry=0.0)


class Bench:
    """A session of a user, and what refreshes its tokens."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.sso = Endpoint(self.clock)
        self.ended: list[str] = []
        self.orphans: list[RenewalGrant] = []
        self.store = MemorySessionStore(self.clock)
        self.sessions = SessionManager(
            store=self.store, login=LoginSettings(), identity="here", times=TimeSource(self.clock)
        )
        self.renewals = SessionRenewals(
            endpoint=self.sso,  # type: ignore[arg-type]
            sessions=self.sessions,
            sign_out=self,  # type: ignore[arg-type]
            audit=self,  # type: ignore[arg-type]
            sso=SsoSettings(token_url="https://sso.test/token"),
            challenge=(),
            times=TimeSource(self.clock),
            sessions_persist=False,
        )

    async def revoke(self, session: Session) -> None:
        """What came too late, in the place of the sign-out."""
        self.orphans.append(session.renewal)

    def record_event(self, _name: str, /, *, user: str, outcome: str) -> None:
        """Why a session ended, in the place of the audit."""
        self.ended.append(outcome)

    async def session(self, *, renewable: bool = True) -> tuple[Session, UserTokens]:
        """Create the session of a signed-in user."""
        renewal = RenewalGrant(Secret("r0")) if renewable else RenewalGrant()
        _, session = await self.sessions.create(SignedInUser("dr"), made("t0", self.clock), renewal)
        return session, UserTokens(session, self.renewals)


@pytest.fixture
async def bench() -> Bench:
    """A new one."""
    return Bench()


def refused(error: str) -> TokenRequestError:
    """The SSO says no."""
    return TokenRequestError("refused", "refused", oauth_error=error, status=400)


AWAY = TokenRequestError("transient", "no connection")


async def test_a_token_is_renewed_ahead_of_its_end(bench: Bench) -> None:
    """Within the last minute a request goes out with the token that there is and renews it."""
    _, tokens = await bench.session()
    bench.sso.script.append("t1")
    assert tokens.current() == made("t0", bench.clock)
    await run_pending_tasks()
    assert bench.sso.asked == []
    bench.clock.now += LIFETIME - 59
    assert tokens.current() == made("t0", bench.clock)
    await run_pending_tasks()
    assert tokens.current() == made("t1", bench.clock)
    assert len(bench.sso.asked) == 1


async def test_one_renewal_at_a_time(bench: Bench) -> None:
    """However many tabs wait, the SSO is asked once; one that leaves ends nothing."""
    _, tokens = await bench.session()
    bench.sso.script.append("t1")
    bench.sso.gate.clear()
    bench.clock.now += LIFETIME
    assert tokens.current() is None
    waiters = [asyncio.ensure_future(tokens.wait_for_token()) for _ in range(5)]
    await run_pending_tasks()
    waiters[0].cancel()
    await run_pending_tasks()
    bench.sso.gate.set()
    assert set(await asyncio.gather(*waiters[1:])) == {made("t1", bench.clock)}
    assert len(bench.sso.asked) == 1


async def test_a_failure_is_not_repeated_at_once(bench: Bench) -> None:
    """While the SSO is away the token is used for as long as it lives, and the SSO left alone."""
    session, tokens = await bench.session()
    bench.sso.script.extend([AWAY, AWAY, "t1"])
    bench.clock.now += LIFETIME - 30
    for _ in range(3):
        assert tokens.current() == made("t0", bench.clock)
        await run_pending_tasks()
    assert len(bench.sso.asked) == 1
    bench.clock.now += 30
    with pytest.raises(GatewayError, match="sso-unavailable"):
        await tokens.wait_for_token()
    with pytest.raises(GatewayError, match="sso-unavailable"):
        await tokens.wait_for_token()
    assert len(bench.sso.asked) == 2
    bench.clock.now += 3
    assert await tokens.wait_for_token() == made("t1", bench.clock)
    assert (session.is_ended, bench.ended) == (False, [])


async def test_tokens_that_come_after_the_sign_out_are_let_go(bench: Bench) -> None:
    """Who signs out while a renewal is under way leaves no refresh token behind at the SSO."""
    session, tokens = await bench.session()
    bench.sso.script.append("t1")
    bench.sso.gate.clear()
    bench.clock.now += LIFETIME
    asked = asyncio.ensure_future(tokens.wait_for_token())
    await run_pending_tasks()
    await bench.sessions.end(session)
    bench.sso.gate.set()
    with pytest.raises(GatewayError, match="caller-unauthenticated"):
        await asked
    await bench.renewals.finish()
    assert bench.orphans == [RenewalGrant(Secret("t1-refresh"))]


async def test_a_refusal_of_the_person_ends_the_session(bench: Bench) -> None:
    """The session ends even while the token is valid, because the sign-in was revoked."""
    session, tokens = await bench.session()
    bench.sso.script.append(refused("invalid_grant"))
    bench.clock.now += LIFETIME - 30
    tokens.current()
    await run_pending_tasks()
    assert (session.is_ended, bench.ended) == (True, ["refused"])
    assert await bench.store.get(session.key) is None
    with pytest.raises(GatewayError, match="caller-unauthenticated"):
        await tokens.wait_for_token()
    assert len(bench.sso.asked) == 1


@pytest.mark.parametrize("error", ["invalid_client", "other", "invalid_request"])
async def test_a_refusal_of_the_client_signs_nobody_out(bench: Bench, error: str) -> None:
    """A wrong secret of the gateway is waited out, after the token's end with sso-unavailable."""
    session, tokens = await bench.session()
    bench.sso.script.extend([refused(error), refused(error), "t1"])
    bench.clock.now += LIFETIME - 30
    tokens.current()
    await run_pending_tasks()
    assert tokens.current() is not None
    bench.clock.now += 30
    with pytest.raises(GatewayError, match="sso-unavailable"):
        await tokens.wait_for_token()
    assert (session.is_ended, bench.ended) == (False, [])
    bench.clock.now += 30
    assert (await tokens.wait_for_token()).reveal() == "t1"


async def test_renewals_that_401s_force_pause(bench: Bench) -> None:
    """A platform that refuses every token does not make the gateway storm the SSO."""
    session, tokens = await bench.session()
    bench.sso.script.extend(["t1", "t2"])
    fresh = await tokens.replace_rejected(session.token)
    tokens.on_fresh_token_rejected(fresh)
    with pytest.raises(GatewayError, match="token-rejected"):
        await tokens.replace_rejected(fresh)
    assert len(bench.sso.asked) == 1
    bench.clock.now += 31
    tokens.on_token_accepted(await tokens.replace_rejected(fresh))
    assert len(bench.sso.asked) == 2


async def test_requests_that_are_refused_together_pause_once(bench: Bench) -> None:
    """Many tabs with the same refused token do not lengthen the pause."""
    session, tokens = await bench.session()
    bench.sso.script.extend(["t1", "t2"])
    fresh = await tokens.replace_rejected(session.token)
    for _ in range(5):
        tokens.on_fresh_token_rejected(fresh)
    bench.clock.now += 1
    assert await tokens.replace_rejected(fresh) == made("t2", bench.clock)


async def test_a_401_for_a_token_that_was_replaced_meanwhile_forces_nothing(bench: Bench) -> None:
    """Of several tabs with the old token only the first one renews."""
    session, tokens = await bench.session()
    old = session.token
    bench.sso.script.append("t1")
    assert await tokens.replace_rejected(old) == made("t1", bench.clock)
    assert await tokens.replace_rejected(old) == made("t1", bench.clock)
    assert len(bench.sso.asked) == 1


async def test_the_same_token_again_is_none(bench: Bench) -> None:
    """An SSO that gives the refused token once more has given nothing."""
    session, tokens = await bench.session()
    bench.sso.script.append("t0")
    with pytest.raises(GatewayError, match="token-rejected"):
        await tokens.replace_rejected(session.token)


async def test_a_bug_lets_no_old_token_out(bench: Bench) -> None:
    """Whatever breaks in a renewal, an expired token is never used."""
    _, tokens = await bench.session()
    bench.clock.now += LIFETIME
    with pytest.raises(GatewayError, match="sso-unavailable"):
        # The script is empty, which breaks the endpoint.
        await tokens.wait_for_token()


async def test_without_a_refresh_token_the_session_ends_with_its_token(bench: Bench) -> None:
    """There is nothing to ask the SSO with."""
    session, tokens = await bench.session(renewable=False)
    bench.clock.now += LIFETIME
    with pytest.raises(GatewayError, match="caller-unauthenticated"):
        await tokens.wait_for_token()
    assert session.is_ended


async def session(bench: Bench) -> str:
    """The identifier of a new session."""
    identifier, _ = await bench.sessions.create(
        SignedInUser("dr"), made("t", bench.clock), RenewalGrant()
    )
    return identifier


async def test_a_session_ends_without_requests(bench: Bench) -> None:
    """After `idle_lifetime`, which every request begins anew."""
    identifier = await session(bench)
    for _ in range(3):
        bench.clock.now += 29 * 60
        assert await bench.sessions.find(identifier, touch=True) is not None
    bench.clock.now += 31 * 60
    assert await bench.sessions.find(identifier, touch=True) is None


async def test_a_session_ends_with_requests_too(bench: Bench) -> None:
    """After `session_lifetime`, however busy the person is."""
    identifier = await session(bench)
    for _ in range(8 * 3 - 1):
        bench.clock.now += 20 * 60
        assert await bench.sessions.find(identifier, touch=True) is not None
    bench.clock.now += 20 * 60
    assert await bench.sessions.find(identifier, touch=True) is None


async def test_asking_does_not_keep_a_session(bench: Bench) -> None:
    """A page that polls who is signed in does not keep an absent person's session open."""
    identifier = await session(bench)
    bench.clock.now += 20 * 60
    assert await bench.sessions.find(identifier, touch=False) is not None
    bench.clock.now += 11 * 60
    assert await bench.sessions.find(identifier, touch=False) is None
