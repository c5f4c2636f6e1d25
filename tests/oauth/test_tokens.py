"""The life of a token: fetched once however many wait, renewed in time, never used when expired."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.clock import TimeSource
from gateway.errors import GatewayError
from gateway.oauth.token_endpoint import TokenEndpoint, TokenRequestQueue
from gateway.oauth.token_response import AccessToken, TokenResponse
from gateway.oauth.token_store import tokens_at_hand
from gateway.oauth.tokens import make_tokens
from tests.doubles import sso as answers
from tests.oauth.harness import (
    SECRET,
    BreakableStore,
    RecordingObserver,
    Setup,
    SharedTokens,
    make_setup,
)

pytestmark = pytest.mark.interpreted

FAILURES = {
    "refused": answers.oauth_error("invalid_client", 401),
    "throttled": answers.status(429, ("Retry-After", "20")),
    "transient": answers.status(503),
}


async def refused_with(setup: Setup) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        await setup.obtain()
    return caught.value


class TestFirstToken:
    """Before there is any token."""

    async def test_credentials_do_not_delay_each_other(self, setup: Setup) -> None:
        tokens = setup.made("lab", "ward")
        setup.sso.script(answers.status(500))
        results = await asyncio.gather(
            *(each.wait_for_token() for each in tokens.values()), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == [
            "AccessToken",
            "GatewayError",
        ]
        assert len(setup.sso.requests) == 2
        for each in tokens.values():
            await each.close()

    @pytest.mark.parametrize("staying", [0, 1])
    async def test_leaving_does_not_end_the_fetch(self, setup: Setup, staying: int) -> None:
        setup.sso.hold()
        leaving, *others = (asyncio.ensure_future(setup.obtain()) for _ in range(1 + staying))
        await setup.sso.wait_for_requests(1)
        leaving.cancel()
        await asyncio.wait({leaving})
        setup.sso.release()
        assert [(await each).reveal() for each in others] == ["token-1"] * staying
        await setup.settled()
        assert setup.current == "token-1"
        assert leaving.cancelled()
        assert len(setup.sso.requests) == 1

    async def test_waiting_requests_time_out(self) -> None:
        async with make_setup(timeout=0.05) as setup:
            setup.sso.hold()
            error = await refused_with(setup)
            assert (error.reason.code, error.retry_after) == ("sso-unavailable", 1.0)
            setup.sso.release()
            await setup.settled()
            assert setup.current == "token-1"
            assert len(setup.sso.requests) == 1

    async def test_closing_rejects_requests_and_ends_their_connections(self, setup: Setup) -> None:
        setup.sso.hold()
        waiting = asyncio.ensure_future(setup.obtain())
        await setup.sso.wait_for_requests(1)
        await setup.tokens.close()
        for request in (waiting, setup.obtain()):
            with pytest.raises(GatewayError, match="shutting-down") as refused:
                await request
            assert refused.value.close_connection
        assert setup.clock.next_due() is None


class TestExpiry:
    """A token's end, and what happens before it."""

    async def test_an_expired_token_is_not_used(self, setup: Setup) -> None:
        setup.sso.script(answers.token("old", expires_in=300))
        await setup.obtain()
        setup.clock.now += 298.9
        assert setup.current == "old"
        setup.clock.now += 0.2
        assert setup.current is None
        assert (await setup.obtain()).reveal() == "token-1"

    async def test_wall_clock_does_not_matter(self, setup: Setup) -> None:
        await setup.obtain()
        for jump in (86_400, -2 * 86_400):
            setup.clock.jump_wall(jump)
            assert setup.current == "token-1"
        setup.clock.now += 301
        assert setup.current is None

    async def test_a_token_is_refreshed_ahead_without_requests(self, setup: Setup) -> None:
        setup.tokens.start()
        await setup.settled()
        await setup.pass_time(179, step=20)
        assert len(setup.sso.requests) == 1
        await setup.pass_time(92, step=20)
        assert len(setup.sso.requests) == 2
        assert setup.current == "token-2"

    async def test_short_lifetimes_do_not_interrupt_service(self, setup: Setup) -> None:
        setup.sso.respond(answers.token("short", expires_in=3))
        setup.tokens.start()
        await setup.settled()
        for _ in range(600):
            token = setup.tokens.current()
            assert token is not None
            assert setup.clock() < token.expires_at
            await setup.pass_time(0.05)
        assert 12 <= len(setup.sso.requests) <= 16
        assert setup.sso.max_concurrent == 1

    async def test_requests_use_the_old_token_meanwhile(self, setup: Setup) -> None:
        await setup.obtain()
        setup.sso.hold()
        await setup.clock.advance(271)
        await setup.sso.wait_for_requests(2)
        assert (await setup.obtain()).reveal() == "token-1"

    async def test_a_token_that_arrives_expired_is_not_used(self, setup: Setup) -> None:
        setup.sso.script(answers.token("late", expires_in=3))
        setup.sso.hold()
        waiting = asyncio.ensure_future(setup.obtain())
        await setup.sso.wait_for_requests(1)
        setup.clock.now += 4
        setup.sso.release()
        with pytest.raises(GatewayError, match=r"sso-unavailable: .*had expired when it came"):
            await waiting
        assert setup.current is None

    async def test_a_token_that_expires_before_its_use_is_not_used(self, setup: Setup) -> None:
        class Stall(RecordingObserver):
            def on_token_expiry(self, credential: str, timestamp: float, /) -> None:
                setup.clock.now += 301

        setup.observer = Stall()
        tokens = setup.made()["default"]
        with pytest.raises(
            GatewayError, match="sso-unavailable: the token expired while the request waited"
        ):
            await tokens.wait_for_token()
        await tokens.close()

    async def test_the_timers_of_the_loop_refresh_a_token(self, setup: Setup) -> None:
        setup.sso.respond(answers.token("short", expires_in=0.2))
        endpoint = TokenEndpoint(session=setup.session, sso=setup.settings)
        times = TimeSource()
        tokens = make_tokens(
            {"default": setup.source(endpoint)},
            at_hand=tokens_at_hand(times.clock),
            store=None,
            metrics=setup.observer,  # type: ignore[arg-type] # a double
            audit=setup.observer,  # type: ignore[arg-type] # a double
            sso=setup.settings,
            times=times,
            queue=TokenRequestQueue(1, times),
        )["default"]
        tokens.start()
        await setup.sso.wait_for_requests(3)
        await tokens.close()

    async def test_tiny_lifetimes_do_not_flood_the_sso(self, setup: Setup) -> None:
        setup.sso.respond(answers.token("tiny", expires_in=0.2))
        await setup.obtain()
        await setup.pass_time(10)
        assert len(setup.sso.requests) <= 21


class TestFailure:
    """While the SSO gives no token."""

    @pytest.mark.parametrize(
        ("kind", "shortest", "longest"),
        [("refused", 60, 66), ("throttled", 20, 22), ("transient", 0.5, 1)],
    )
    async def test_the_sso_is_asked_again_after_the_delay_of_each_failure(
        self, setup: Setup, kind: str, shortest: float, longest: float
    ) -> None:
        setup.sso.script(FAILURES[kind])
        await refused_with(setup)
        await setup.pass_time(shortest * 0.99, step=shortest / 10)
        assert len(setup.sso.requests) == 1
        await setup.pass_time(longest * 1.02 - shortest * 0.99, step=shortest / 10)
        assert len(setup.sso.requests) == 2
        assert setup.current == "token-1"
        assert setup.state.failure is None

    async def test_callers_get_retry_after(self, setup: Setup) -> None:
        setup.sso.respond(FAILURES["throttled"])
        first = await refused_with(setup)
        await setup.clock.advance(10)
        second = await refused_with(setup)
        assert 20 <= first.retry_after <= 22
        assert second.retry_after == pytest.approx(first.retry_after - 10)

    async def test_retry_after_is_at_least_a_second(self, setup: Setup) -> None:
        setup.sso.respond(answers.status(429, ("Retry-After", "0")))
        assert (await refused_with(setup)).retry_after >= 1
        await setup.clock.advance(0.5)
        assert (await refused_with(setup)).retry_after == 1

    async def test_delays_double_up_to_30_seconds(self, setup: Setup) -> None:
        setup.sso.respond(FAILURES["transient"])
        pauses = []
        setup.tokens.start()
        for _ in range(12):
            await setup.settled()
            pauses.append(setup.state.next_attempt_in)
            await setup.clock.advance(pauses[-1])
        for pause, ceiling in zip(pauses, [1, 2, 4, 8, 16] + [30] * 7, strict=True):
            assert ceiling / 2 <= pause <= ceiling

    @pytest.mark.parametrize(
        "down",
        [
            answers.RESET,
            answers.status(403),
            answers.json_body({"success": False, "errors": [{"code": 1010}]}, 401),
        ],
        ids=["reset", "page of a firewall", "answer of a firewall"],
    )
    async def test_a_valid_token_is_used_during_an_outage(
        self, setup: Setup, down: answers.ScriptedResponse
    ) -> None:
        setup.sso.script(answers.token("old"))
        setup.sso.respond(down)
        await setup.obtain()
        while setup.clock() < 1000 + 298.9:
            assert setup.current == "old"
            assert (await setup.obtain()).reveal() == "old"
            assert setup.state.is_valid
            await setup.pass_time(1, step=0.5)
        await setup.pass_time(2, step=0.1)
        assert (await refused_with(setup)).reason.code == "sso-unavailable"
        assert not setup.state.is_valid
        assert 5 <= len(setup.sso.requests) <= 40

    async def test_back_off_begins_anew_at_the_end_of_the_token(self, setup: Setup) -> None:
        setup.sso.script(answers.token("old", expires_in=5))
        setup.sso.respond(FAILURES["transient"])
        await setup.obtain()
        while setup.current is not None:
            await setup.pass_time(0.1)
        tried = len(setup.sso.requests)
        await setup.pass_time(1.2)
        assert len(setup.sso.requests) > tried
        assert (setup.state.next_attempt_in or 0) <= 2

    async def test_a_failed_refresh_is_repeated_before_expiry(self, setup: Setup) -> None:
        setup.sso.script(answers.token("old", expires_in=3), answers.status(502))
        await setup.obtain()
        for _ in range(60):
            assert setup.current is not None
            await setup.pass_time(0.05)
        assert setup.current == "token-1"

    async def test_the_request_after_a_delay_is_shared(self, setup: Setup) -> None:
        setup.sso.script(FAILURES["transient"])
        await refused_with(setup)
        setup.clock.now += 2
        got = await asyncio.gather(*(setup.obtain() for _ in range(20)))
        assert {token.reveal() for token in got} == {"token-1"}
        assert len(setup.sso.requests) == 2

    async def test_a_changed_secret_ends_the_delay(self, setup: Setup) -> None:
        setup.sso.script(FAILURES["refused"])
        await refused_with(setup)
        setup.tokens.fetch_now()
        assert (await setup.obtain()).reveal() == "token-1"

    async def test_a_rejection_of_the_previous_secret_starts_no_delay(self, setup: Setup) -> None:
        setup.sso.script(FAILURES["refused"])
        setup.sso.hold()
        setup.tokens.start()
        await setup.sso.wait_for_requests(1)
        setup.tokens.fetch_now()
        setup.sso.release()
        await setup.settled()
        await setup.clock.advance(0)
        await setup.settled()
        assert setup.current == "token-1"

    async def test_an_exception_of_a_source_is_transient(
        self, setup: Setup, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken:
            name = "default"
            store_key = setup.source().store_key
            uses_previous_secret = False
            calls = request_count = 0

            async def request(self) -> TokenResponse:
                self.calls += 1
                raise ZeroDivisionError(SECRET)

        source = Broken()
        tokens = setup.made()["default"]
        tokens.credential = source
        with pytest.raises(GatewayError, match="sso-unavailable"):
            await tokens.wait_for_token()
        await setup.clock.advance(1)
        assert source.calls == 2
        assert "ZeroDivisionError" in caplog.text
        assert SECRET not in caplog.text
        await tokens.close()


class TestStore:
    """What others share."""

    async def test_one_renewal_for_all_of_a_client(self, setup: Setup) -> None:
        tokens = setup.made("lab", "ward")
        for each in tokens.values():
            each.start()
            await setup.settled()
            await each.wait_for_token()
        await setup.pass_time(271, step=1.0)
        assert tokens["lab"].current() == tokens["ward"].current()
        assert len(setup.sso.requests) == 2
        for each in tokens.values():
            await each.close()

    async def test_a_stored_token_that_is_due_is_used_and_refreshed(self, setup: Setup) -> None:
        await setup.obtain()
        setup.tokens.stop_renewing()
        setup.clock.now += 271
        setup.tokens = setup.made()["default"]
        setup.tokens.start()
        assert setup.current == "token-1"
        await setup.pass_time(0.6)
        assert setup.current == "token-2"

    async def test_a_rejected_token_leaves_the_process_cache(self, setup: Setup) -> None:
        rejected = await setup.obtain()
        assert (await setup.tokens.replace_rejected(rejected)).reveal() == "token-2"
        after = setup.made()["default"]
        after.start()
        assert (await after.wait_for_token()).reveal() == "token-2"
        assert len(setup.sso.requests) == 2
        await after.close()

    async def test_an_expired_token_is_no_longer_at_hand(self, setup: Setup) -> None:
        await setup.obtain()
        setup.tokens.stop_renewing()
        assert len(setup.at_hand) == 1
        setup.clock.now += 300
        assert len(setup.at_hand) == 0
        assert setup.current is None

    async def test_rejected_token_is_dropped_for_others(self, setup: Setup) -> None:
        store = SharedTokens()
        setup.tokens = setup.made(store=store)["default"]
        rejected = await setup.obtain()
        assert store.tokens
        setup.sso.respond(answers.status(503))
        with pytest.raises(GatewayError):
            await setup.tokens.replace_rejected(rejected)
        assert not store.tokens

    async def test_the_token_in_use_is_not_taken_from_the_store_again(self, setup: Setup) -> None:
        setup.tokens = setup.made(store=SharedTokens())["default"]
        await setup.obtain()
        setup.tokens.fetch_now()
        await setup.settled()
        assert setup.current == "token-2"

    async def test_a_refresh_takes_the_token_of_another_replica(self, setup: Setup) -> None:
        store = SharedTokens()
        setup.tokens = setup.made(store=store)["default"]
        await setup.obtain()
        setup.clock.now += 205
        fresh = AccessToken("theirs", received_at=setup.clock(), lifetime=300, wall_expiry=0)
        await store.put(setup.source().store_key, fresh)
        await setup.clock.advance(40)
        await setup.settled()
        assert setup.current == "theirs"
        assert len(setup.sso.requests) == 1

    @pytest.mark.parametrize("hangs", [True, False])
    async def test_a_failing_store_costs_no_token(self, setup: Setup, hangs: bool) -> None:
        store = BreakableStore()
        setattr(store, "hangs" if hangs else "broken", True)
        tokens = setup.made(store=store)["default"]
        token = await tokens.wait_for_token()
        assert (await tokens.replace_rejected(token)).reveal() == "token-2"
        await tokens.close()


class TestTelling:
    """Reports to observers, logs and error texts."""

    @pytest.mark.parametrize("code", [401, 403])
    async def test_a_403_without_a_code_names_both_causes(
        self, setup: Setup, code: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        setup.sso.script(answers.http(code))
        error = await refused_with(setup)
        assert error.reason.code == "sso-unavailable"
        assert error.hint == (
            f"SSO: status {code}, a firewall in front of it, or a wrong address, or a wrong "
            "client_id or secret, which some SSOs refuse in this way"
        )
        assert "a wrong client_id or secret, a firewall in front" in caplog.text
        assert "client_id and client secret of credentials.default" in caplog.text

    async def test_an_unknown_error_code_is_shown(
        self, setup: Setup, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A code that RFC 6749 does not have is told as it is."""
        setup.sso.script(answers.oauth_error("access_denied", 403))
        error = await refused_with(setup)
        assert (error.reason.code, setup.state.oauth_error) == ("token-refused", "access_denied")
        assert "error access_denied" in error.hint
        assert "access_denied" in caplog.text

    async def test_the_observer_gets_outcome_and_expiry(self, setup: Setup) -> None:
        setup.sso.script(FAILURES["transient"], answers.token("abc", expires_in=30, scope="a b"))
        await refused_with(setup)
        await setup.pass_time(1)
        assert setup.observer.outcomes == ["transient", "ok"]
        (_, expiry) = setup.observer.expiries[-1]
        assert expiry == pytest.approx(setup.clock.wall() + 30, abs=1)
        assert setup.observer.events == [
            ("default", "transient", {"cause": "error status", "status": 503, "error": None}),
            ("default", "ok", {"lifetime": 30.0, "scope": "a b"}),
        ]

    async def test_the_observer_gets_the_duration(self, setup: Setup) -> None:
        setup.sso.hold()
        setup.tokens.start()
        await setup.sso.wait_for_requests(1)
        setup.clock.now += 2.5
        setup.sso.release()
        await setup.settled()
        assert setup.observer.requested == [("default", "ok", 2.5)]

    async def test_the_state_shows_expiry_failure_and_next_attempt(self, setup: Setup) -> None:
        assert not setup.state.is_valid
        setup.sso.hold()
        setup.tokens.start()
        assert setup.state.is_fetching
        setup.sso.release()
        await setup.settled()
        assert setup.state.is_valid
        assert setup.state.expires_in == 300
        assert 180 <= setup.state.next_attempt_in <= 270
        setup.sso.respond(FAILURES["refused"])
        await setup.pass_time(271, step=10)
        assert setup.state.is_valid
        assert setup.state.failure == "refused"
        reported = (setup.state.cause, setup.state.status, setup.state.oauth_error)
        assert reported == ("refused", 401, "invalid_client")

    @pytest.mark.parametrize("kind", FAILURES)
    async def test_secrets_and_tokens_are_never_shown(
        self, setup: Setup, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG)
        setup.sso.script(answers.token("planted-token", expires_in=3), FAILURES[kind])
        token = await setup.obtain()
        setup.tokens.on_fresh_token_rejected(token)
        setup.clock.now += 4
        error = await refused_with(setup)
        shown = [caplog.text, repr(error), str(error), error.hint, repr(token), str(token)]
        shown += [f"{token}", repr(setup.tokens.state()), repr(setup.observer)]
        assert caplog.text
        assert "planted" not in "".join(shown)

    def test_token_compares_by_value(self) -> None:
        first, same, other = (
            AccessToken(value, received_at=number, lifetime=1, wall_expiry=number)
            for number, value in enumerate(["a", "a", "b"])
        )
        assert first == same
        assert hash(first) == hash(same)
        assert first != other
        assert first != b"Bearer a"
