"""Refreshing the token of a user, with a fake clock and a scripted SSO."""

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
        self.asked.append(renewal)
        await self.gate.wait()
        answer = self.script.popleft()
        if isinstance(answer, TokenRequestError):
            raise answer
        return UserTokenSet(made(answer, self.clock), RenewalGrant(Secret(f"{answer}-refresh")))


def made(value: str, clock: FakeClock) -> AccessToken:
    return AccessToken(value, received_at=clock(), lifetime=LIFETIME, wall_expiry=0.0)


class RefreshSetup:
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
        _, session = await self.sessions.create(
            SignedInUser("dr"), made("t0", self.clock), renewal, state="s", return_to="/"
        )
        return session, UserTokens(session, self.renewals)


@pytest.fixture
async def setup() -> RefreshSetup:
    return RefreshSetup()


def refused(error: str) -> TokenRequestError:
    return TokenRequestError("refused", "refused", oauth_error=error, status=400)


AWAY = TokenRequestError("transient", "no connection")


async def test_a_token_is_refreshed_before_its_expiry(setup: RefreshSetup) -> None:
    _, tokens = await setup.session()
    setup.sso.script.append("t1")
    assert tokens.current() == made("t0", setup.clock)
    setup.clock.now += 0.59 * LIFETIME
    assert tokens.current() == made("t0", setup.clock)
    await run_pending_tasks()
    assert setup.sso.asked == []
    setup.clock.now += 0.32 * LIFETIME
    assert tokens.current() == made("t0", setup.clock)
    await run_pending_tasks()
    assert tokens.current() == made("t1", setup.clock)
    assert len(setup.sso.asked) == 1


async def test_renewals_of_users_who_signed_in_together_are_spread(setup: RefreshSetup) -> None:
    users = [(await setup.session())[1] for _ in range(100)]
    setup.sso.script.extend(["t1"] * len(users))
    setup.clock.now += 0.75 * LIFETIME
    for each in users:
        each.current()
    await run_pending_tasks()
    assert 0 < len(setup.sso.asked) < len(users)


async def test_concurrent_requests_share_one_refresh(setup: RefreshSetup) -> None:
    _, tokens = await setup.session()
    setup.sso.script.append("t1")
    setup.sso.gate.clear()
    setup.clock.now += LIFETIME
    assert tokens.current() is None
    waiters = [asyncio.ensure_future(tokens.wait_for_token()) for _ in range(5)]
    await run_pending_tasks()
    waiters[0].cancel()
    await run_pending_tasks()
    setup.sso.gate.set()
    assert set(await asyncio.gather(*waiters[1:])) == {made("t1", setup.clock)}
    assert len(setup.sso.asked) == 1


async def test_a_failed_refresh_is_retried_after_a_delay(setup: RefreshSetup) -> None:
    session, tokens = await setup.session()
    setup.sso.script.extend([AWAY, AWAY, "t1"])
    setup.clock.now += LIFETIME - 30
    for _ in range(3):
        assert tokens.current() == made("t0", setup.clock)
        await run_pending_tasks()
    assert len(setup.sso.asked) == 1
    setup.clock.now += 30
    with pytest.raises(GatewayError, match="sso-unavailable"):
        await tokens.wait_for_token()
    with pytest.raises(GatewayError, match="sso-unavailable"):
        await tokens.wait_for_token()
    assert len(setup.sso.asked) == 2
    setup.clock.now += 3
    assert await tokens.wait_for_token() == made("t1", setup.clock)
    assert (session.is_ended, setup.ended) == (False, [])


async def test_tokens_received_after_the_sign_out_are_revoked(setup: RefreshSetup) -> None:
    session, tokens = await setup.session()
    setup.sso.script.append("t1")
    setup.sso.gate.clear()
    setup.clock.now += LIFETIME
    asked = asyncio.ensure_future(tokens.wait_for_token())
    await run_pending_tasks()
    await setup.sessions.end(session)
    setup.sso.gate.set()
    with pytest.raises(GatewayError, match="caller-unauthenticated"):
        await asked
    await setup.renewals.finish()
    assert setup.orphans == [RenewalGrant(Secret("t1-refresh"))]


async def test_invalid_grant_ends_the_session(setup: RefreshSetup) -> None:
    """The session ends even while the token is valid, because the sign-in was revoked."""
    session, tokens = await setup.session()
    setup.sso.script.append(refused("invalid_grant"))
    setup.clock.now += LIFETIME - 30
    tokens.current()
    await run_pending_tasks()
    assert (session.is_ended, setup.ended) == (True, ["refused"])
    assert await setup.store.get(session.key) is None
    with pytest.raises(GatewayError, match="caller-unauthenticated"):
        await tokens.wait_for_token()
    assert len(setup.sso.asked) == 1


async def test_refreshes_after_401_are_delayed(setup: RefreshSetup) -> None:
    session, tokens = await setup.session()
    setup.sso.script.extend(["t1", "t2"])
    fresh = await tokens.replace_rejected(session.token)
    tokens.on_fresh_token_rejected(fresh)
    with pytest.raises(GatewayError, match="token-rejected"):
        await tokens.replace_rejected(fresh)
    assert len(setup.sso.asked) == 1
    setup.clock.now += 31
    tokens.on_token_accepted(await tokens.replace_rejected(fresh))
    assert len(setup.sso.asked) == 2


async def test_requests_rejected_together_cause_one_pause(setup: RefreshSetup) -> None:
    session, tokens = await setup.session()
    setup.sso.script.extend(["t1", "t2"])
    fresh = await tokens.replace_rejected(session.token)
    for _ in range(5):
        tokens.on_fresh_token_rejected(fresh)
    setup.clock.now += 1
    assert await tokens.replace_rejected(fresh) == made("t2", setup.clock)


async def test_a_401_for_a_replaced_token_causes_no_refresh(setup: RefreshSetup) -> None:
    session, tokens = await setup.session()
    old = session.token
    setup.sso.script.append("t1")
    assert await tokens.replace_rejected(old) == made("t1", setup.clock)
    assert await tokens.replace_rejected(old) == made("t1", setup.clock)
    assert len(setup.sso.asked) == 1


async def test_an_unchanged_token_is_a_failed_refresh(setup: RefreshSetup) -> None:
    session, tokens = await setup.session()
    setup.sso.script.append("t0")
    with pytest.raises(GatewayError, match="token-rejected"):
        await tokens.replace_rejected(session.token)


async def test_an_expired_token_is_not_used_after_an_exception(setup: RefreshSetup) -> None:
    _, tokens = await setup.session()
    setup.clock.now += LIFETIME
    with pytest.raises(GatewayError, match="sso-unavailable"):
        # The script is empty, which breaks the endpoint.
        await tokens.wait_for_token()


async def test_without_a_refresh_token_the_session_ends_with_its_token(setup: RefreshSetup) -> None:
    session, tokens = await setup.session(renewable=False)
    setup.clock.now += LIFETIME
    with pytest.raises(GatewayError, match="caller-unauthenticated"):
        await tokens.wait_for_token()
    assert session.is_ended


async def session(setup: RefreshSetup) -> str:
    identifier, _ = await setup.sessions.create(
        SignedInUser("dr"), made("t", setup.clock), RenewalGrant(), state="s", return_to="/"
    )
    return identifier


@pytest.mark.parametrize(
    ("times", "minutes", "last", "touch"),
    [(3, 29, 31, True), (23, 20, 20, True), (1, 20, 11, False)],
    ids=["without requests", "with requests, at its lifetime", "at the session endpoint alone"],
)
async def test_a_session_ends(
    setup: RefreshSetup, times: int, minutes: int, last: int, touch: bool
) -> None:
    identifier = await session(setup)
    for _ in range(times):
        setup.clock.now += minutes * 60
        assert await setup.sessions.find(identifier, touch=touch) is not None
    setup.clock.now += last * 60
    assert await setup.sessions.find(identifier, touch=touch) is None
