"""Invariants of tokens under random events of SSO, platform and time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.errors import GatewayError
from gateway.oauth.token_response import AccessToken, TokenRequestError, TokenResponse
from gateway.oauth.token_store import StoreKey
from gateway.secret import Secret
from tests.doubles.clock import FakeClock, run_pending_tasks
from tests.oauth.harness import RecordingObserver, tokens_of

pytestmark = pytest.mark.interpreted

ALLOWED = {"token-refused", "sso-unavailable", "token-rejected"}
LAST = {"shutting-down"}
TIMES = st.sampled_from([0.05, 0.3, 1.0, 2.5, 7.0, 31.0, 70.0, 250.0])


class ManualSource:
    """A source whose requests end when and as the machine says."""

    name = "default"
    store_key = StoreKey("key", Secret("material"))
    uses_previous_secret = False

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.pending: asyncio.Future[tuple[str, float] | BaseException] | None = None
        self.not_before = 0.0
        # Since the machine's last step: a request that neither of these explains is forced.
        self.due = -math.inf
        self.needed = True
        self.forced_at = -math.inf
        self.mistakes: list[str] = []

    async def request(self) -> TokenResponse:
        """One request; overlapping another, or too early, is a mistake."""
        # Raised here they would be taken for the SSO's.
        if self.pending is not None:
            self.mistakes.append("two token requests at once")
        if self.clock() < self.not_before:
            self.mistakes.append("asked again too early")
        asked = self.clock()
        if not self.needed and asked < self.due - 1e-6:
            self._force(asked)
        self.pending = asyncio.get_running_loop().create_future()
        try:
            result = await self.pending
        finally:
            self.pending = None
        if isinstance(result, BaseException):
            raise result
        value, lifetime = result
        return TokenResponse(Secret(value), lifetime, "expires_in", asked)

    def _force(self, now: float) -> None:
        if now - self.forced_at < 1 - 1e-6:
            self.mistakes.append("forced fetches too close together")
        self.forced_at = now


class TokenMachine(RuleBasedStateMachine):
    """Requests, answers, rejections and time in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.source = ManualSource(self.clock)
        self.observer = RecordingObserver()
        credentials = {"default": self.source}
        self.tokens = tokens_of(credentials, clock=self.clock, observer=self.observer)["default"]
        self.given: list[AccessToken] = []
        self.waiting: list[asyncio.Task[None]] = []
        self.values = 0
        self.closing = False
        self.secret_changed = False  # while the SSO was asked, or was about to be
        self._run(self._start())

    async def _start(self) -> None:
        self.tokens.start()

    def _run(self, work: Coroutine[object, object, object]) -> None:
        async def settle() -> None:
            await work
            await run_pending_tasks()

        self.loop.run_until_complete(settle())

    def _ask(
        self, work: Coroutine[object, object, AccessToken], rejected: AccessToken | None = None
    ) -> None:
        async def checked() -> None:
            outcome: AccessToken | GatewayError
            try:
                outcome = await work
            except GatewayError as error:
                outcome = error
            self._check(outcome, rejected)

        self.waiting.append(self.loop.create_task(checked()))
        self._run(asyncio.sleep(0))

    def _check(self, outcome: AccessToken | GatewayError, rejected: AccessToken | None) -> None:
        if isinstance(outcome, AccessToken):
            assert self.clock() < outcome.expires_at, "an expired token was given out"
            assert outcome != rejected, "the rejected token was given out again"
            self.given.append(outcome)
            return
        assert outcome.reason.code in (LAST if self.closing else ALLOWED)
        assert outcome.reason.code != "sso-unavailable" or outcome.retry_after >= 1

    def _answer(self, result: tuple[str, float] | BaseException) -> None:
        assert self.source.pending is not None
        self.source.pending.set_result(result)
        self._run(asyncio.sleep(0))

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        self._run(self.clock.advance(seconds))

    @rule()
    def request_comes(self) -> None:
        self._ask(self.tokens.wait_for_token())

    @precondition(lambda self: self.source.pending is not None)
    @rule(lifetime=st.sampled_from([0.2, 3.0, 60.0, 300.0, 86_400.0]), same=st.booleans())
    def sso_answers(self, lifetime: float, same: bool) -> None:
        """The SSO issues a token: a new one, or the one it issued before."""
        self.secret_changed = False
        self.values += not same or not self.values
        self._answer((f"token-{self.values}", lifetime))

    @precondition(lambda self: self.source.pending is not None)
    @rule(kind=st.sampled_from(["refused", "throttled", "transient", "bug"]))
    def sso_fails(self, kind: str) -> None:
        """The SSO does not issue one; a refusal and a Retry-After must be respected."""
        pauses = {"refused": 60.0, "throttled": 20.0}
        pause = 0.0 if self.secret_changed else pauses.get(kind, 0.0)
        self.source.not_before = self.clock() + pause
        self.secret_changed = False
        if kind == "bug":
            self._answer(ZeroDivisionError())
        else:
            self._answer(TokenRequestError(kind, "error status", retry_after=pauses.get(kind)))

    @precondition(lambda self: self.given)
    @rule(data=st.data())
    def platform_rejects(self, data: st.DataObject) -> None:
        """A request learns that its token was rejected, soon or late."""
        token = data.draw(st.sampled_from(self.given))
        self._ask(self.tokens.replace_rejected(token), rejected=token)

    @precondition(lambda self: self.given)
    @rule(
        data=st.data(),
        verdict=st.sampled_from(["on_fresh_token_rejected", "on_token_accepted", "invalidate"]),
    )
    def platform_says(self, data: st.DataObject, verdict: str) -> None:
        """A request that will not be sent again tells what the platform thought of its token."""
        token = data.draw(st.sampled_from(self.given))

        async def tell() -> None:
            getattr(self.tokens, verdict)(token)

        self._run(tell())

    @precondition(lambda self: self.tokens.current() is not None)
    @rule()
    def one_is_rejected_others_are_not(self) -> None:
        """The platform takes the token in use, and answers one request with 401 all the same."""
        token = self.tokens.current()
        assert token is not None
        self.tokens.on_token_accepted(token)
        self._ask(self.tokens.replace_rejected(token), rejected=token)

    @rule()
    def secret_changes(self) -> None:
        """A changed secret ends all pauses."""

        async def change() -> None:
            self.source.not_before = 0.0
            self.source.needed = True
            self.tokens.fetch_now()

        before = self.source.pending
        self._run(change())
        self.secret_changed = self.source.pending is before

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def caller_leaves(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.waiting)).cancel()
        self._run(asyncio.sleep(0))

    @rule(seconds=st.sampled_from([-86_400.0, 86_400.0]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.clock.jump_wall(seconds)

    @invariant()
    def the_sso_is_asked_in_measure(self) -> None:
        """One request at a time, none in a pause, and forced ones at a distance."""
        assert self.source.mistakes == []

    @invariant()
    def token_in_use_is_alive(self) -> None:
        token = self.tokens.current()
        assert token is None or self.clock() < token.expires_at

    @invariant()
    def never_idle_for_good(self) -> None:
        """Either the SSO is being asked or it is known when it will be."""
        state = self.tokens.state()
        assert state.is_fetching == (self.source.pending is not None)
        assert state.is_fetching != (state.next_attempt_in is not None)
        assert state.is_fetching or self.clock.next_due() is not None

    @invariant()
    def nobody_waits_in_vain(self) -> None:
        """Requests wait only while the SSO is being asked; failed checks come to light here."""
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled():
                task.result()
        # A forced fetch may keep a distance of a second from the one before.
        soon = self.tokens.state().next_attempt_in
        assert not self.waiting or self.source.pending is not None or (soon or 9) <= 1
        assert not self.observer.waiters or self.observer.waiters[-1][1] == len(self.waiting)

    @invariant()
    def what_explains_the_next_request(self) -> None:
        """Is noted: that there is no token, or that a timer is due."""
        state = self.tokens.state()
        self.source.needed = not state.is_valid
        # A timer that was set at the last step; a fetch that waits for its turn is a forced one.
        waits_its_turn = bool(self.waiting) and not state.is_fetching
        soon = state.next_attempt_in
        self.source.due = math.inf if soon is None or waits_its_turn else self.clock() + soon

    def teardown(self) -> None:
        """Closing leaves nothing behind."""
        self.closing = True
        try:
            self._run(self.tokens.close())
            for task in self.waiting:
                task.result()
            assert self.clock.next_due() is None
        finally:
            self.loop.close()


TestTokens = TokenMachine.TestCase
TestTokens.settings = settings(max_examples=60, stateful_step_count=40)
