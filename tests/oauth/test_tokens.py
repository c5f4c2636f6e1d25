"""The life of a token: fetched once however many wait, renewed in time, never used when expired."""

from __future__ import annotations

import asyncio
import logging

import pytest

from gateway.errors import GatewayError
from gateway.oauth.token_endpoint import TokenEndpoint
from gateway.oauth.token_response import AccessToken, TokenResponse
from gateway.oauth.token_store import tokens_at_hand
from gateway.oauth.tokens import make_tokens
from tests.doubles import sso as answers
from tests.oauth.harness import (
    SECRET,
    Bench,
    BreakableStore,
    RecordingObserver,
    SharedTokens,
    bench,
)

pytestmark = pytest.mark.interpreted

FAILURES = {
    "refused": answers.oauth_error("invalid_client", 401),
    "throttled": answers.status(429, ("Retry-After", "20")),
    "transient": answers.status(503),
}


async def refused_with(given: Bench) -> GatewayError:
    """The error that a request without a token ends with."""
    with pytest.raises(GatewayError) as caught:
        await given.obtain()
    return caught.value


class TestFirstToken:
    """Before there is any token."""

    async def test_each_credential_has_its_own(self, given: Bench) -> None:
        """Credentials fetch side by side, and one that fails does not hold up another."""
        tokens = given.made("lab", "ward")
        given.sso.script(answers.status(500))
        results = await asyncio.gather(
            *(each.wait_for_token() for each in tokens.values()), return_exceptions=True
        )
        assert sorted(type(result).__name__ for result in results) == [
            "AccessToken",
            "GatewayError",
        ]
        assert len(given.sso.requests) == 2
        for each in tokens.values():
            await each.close()

    async def test_fifty_fail_at_once(self, given: Bench) -> None:
        """Fifty simultaneous first requests share one failure as well."""
        given.sso.respond(answers.status(500))
        got = await asyncio.gather(*(given.obtain() for _ in range(50)), return_exceptions=True)
        assert {str(error) for error in got} == {
            f"sso-unavailable: the SSO at {given.sso.token_url} gave no token: "
            "it answers with an error (status 500)"
        }
        assert len({id(error) for error in got}) == 50
        assert len(given.sso.requests) == 1

    @pytest.mark.parametrize("staying", [0, 1])
    async def test_leaving_does_not_end_the_fetch(self, given: Bench, staying: int) -> None:
        """A caller that leaves takes nothing from those who still wait, or who come next."""
        given.sso.hold()
        leaving, *others = (asyncio.ensure_future(given.obtain()) for _ in range(1 + staying))
        await given.sso.wait_for_requests(1)
        leaving.cancel()
        await asyncio.wait({leaving})
        given.sso.release()
        assert [(await each).reveal() for each in others] == ["token-1"] * staying
        await given.settled()
        assert given.current == "token-1"
        assert leaving.cancelled()
        assert len(given.sso.requests) == 1

    async def test_waiting_ends(self) -> None:
        """A request waits for a token at most the time-out, then it is 503 with Retry-After."""
        async with bench(timeout=0.05) as given:
            given.sso.hold()
            error = await refused_with(given)
            assert (error.reason.code, error.retry_after) == ("sso-unavailable", 1.0)
            given.sso.release()
            await given.settled()
            assert given.current == "token-1"
            assert len(given.sso.requests) == 1

    async def test_closing_ends_the_waiting(self, given: Bench) -> None:
        """Requests that wait when the gateway closes are told so, and nothing is fetched later."""
        given.sso.hold()
        waiting = asyncio.ensure_future(given.obtain())
        await given.sso.wait_for_requests(1)
        await given.tokens.close()
        with pytest.raises(GatewayError, match="shutting-down"):
            await waiting
        with pytest.raises(GatewayError, match="shutting-down"):
            await given.obtain()
        assert given.clock.next_due() is None


class TestExpiry:
    """A token's end, and what happens before it."""

    async def test_never_used_when_expired(self, given: Bench) -> None:
        """Shortly before its end a token is not given out any more."""
        given.sso.script(answers.token("old", expires_in=300))
        await given.obtain()
        given.clock.now += 298.9
        assert given.current == "old"
        given.clock.now += 0.2
        assert given.current is None
        assert (await given.obtain()).reveal() == "token-1"

    async def test_wall_clock_does_not_matter(self, given: Bench) -> None:
        """Setting the machine's clock by a day, either way, changes nothing."""
        await given.obtain()
        for jump in (86_400, -2 * 86_400):
            given.clock.jump_wall(jump)
            assert given.current == "token-1"
        given.clock.now += 301
        assert given.current is None

    async def test_renewed_ahead_when_idle(self, given: Bench) -> None:
        """Without any request the token is renewed when 70 to 80 per cent of its life are over."""
        given.tokens.start()
        await given.settled()
        await given.pass_time(209, step=20)
        assert len(given.sso.requests) == 1
        await given.pass_time(32, step=20)
        assert len(given.sso.requests) == 2
        assert given.current == "token-2"

    async def test_jitter(self, given: Bench) -> None:
        """Many gateways do not renew at the same moment."""
        names = [f"c{number}" for number in range(10)]
        tokens = given.made(*names)
        await asyncio.gather(*(each.wait_for_token() for each in tokens.values()))
        due = [each.state().next_attempt_in for each in tokens.values()]
        assert len(set(due)) == len(names)
        assert all(209 < seconds < 241 for seconds in due)
        for each in tokens.values():
            await each.close()

    async def test_ten_short_lives(self, given: Bench) -> None:
        """Over ten lifetimes of three seconds no request waits, fails or gets an expired token."""
        given.sso.respond(answers.token("short", expires_in=3))
        given.tokens.start()
        await given.settled()
        for _ in range(600):
            token = given.tokens.current()
            assert token is not None
            assert given.clock() < token.expires_at
            await given.pass_time(0.05)
        assert 12 <= len(given.sso.requests) <= 16
        assert given.sso.max_concurrent == 1

    async def test_requests_use_the_old_token_meanwhile(self, given: Bench) -> None:
        """A slow renewal does not hold up requests while the token is valid."""
        await given.obtain()
        given.sso.hold()
        await given.clock.advance(245)
        await given.sso.wait_for_requests(2)
        assert (await given.obtain()).reveal() == "token-1"

    async def test_late_answer(self, given: Bench) -> None:
        """A token that expired while the SSO took its time is not given out."""
        given.sso.script(answers.token("late", expires_in=3))
        given.sso.hold()
        waiting = asyncio.ensure_future(given.obtain())
        await given.sso.wait_for_requests(1)
        given.clock.now += 4
        given.sso.release()
        with pytest.raises(GatewayError, match=r"sso-unavailable: .*had expired when it came"):
            await waiting
        assert given.current is None

    async def test_expired_while_waiting(self, given: Bench) -> None:
        """A token that ends between its arrival and the waiting request's turn is not given out."""

        class Stall(RecordingObserver):
            def on_token_expiry(self, credential: str, timestamp: float, /) -> None:
                given.clock.now += 301

        given.observer = Stall()
        tokens = given.made()["default"]
        with pytest.raises(
            GatewayError, match="sso-unavailable: the token expired while the request waited"
        ):
            await tokens.wait_for_token()
        await tokens.close()

    async def test_real_timers(self, given: Bench) -> None:
        """Without a clock of the test's the loop's own timers renew a token."""
        given.sso.respond(answers.token("short", expires_in=0.2))
        endpoint = TokenEndpoint(session=given.session, sso=given.settings)
        tokens = make_tokens(
            {"default": given.source(endpoint)},
            at_hand=tokens_at_hand(),
            store=None,
            metrics=given.observer,  # type: ignore[arg-type] # a double
            audit=given.observer,  # type: ignore[arg-type] # a double
            sso=given.settings,
        )["default"]
        tokens.start()
        await given.sso.wait_for_requests(3)
        await tokens.close()

    async def test_tiny_lifetime(self, given: Bench) -> None:
        """A lifetime far below a second does not make the gateway hammer the SSO when idle."""
        given.sso.respond(answers.token("tiny", expires_in=0.2))
        await given.obtain()
        await given.pass_time(10)
        assert len(given.sso.requests) <= 21


class TestFailure:
    """While the SSO gives no token."""

    @pytest.mark.parametrize(
        ("kind", "shortest", "longest"),
        [("refused", 60, 66), ("throttled", 20, 22), ("transient", 0.5, 1)],
    )
    async def test_pause(self, given: Bench, kind: str, shortest: float, longest: float) -> None:
        """After the pause of its class the SSO is asked again, without any request."""
        given.sso.script(FAILURES[kind])
        await refused_with(given)
        await given.pass_time(shortest * 0.99, step=shortest / 10)
        assert len(given.sso.requests) == 1
        await given.pass_time(longest * 1.02 - shortest * 0.99, step=shortest / 10)
        assert len(given.sso.requests) == 2
        assert given.current == "token-1"
        assert given.state.failure is None

    async def test_retry_after_for_callers(self, given: Bench) -> None:
        """Callers are told to come back when the SSO will have been asked again."""
        given.sso.respond(FAILURES["throttled"])
        first = await refused_with(given)
        await given.clock.advance(10)
        second = await refused_with(given)
        assert 20 <= first.retry_after <= 22
        assert second.retry_after == pytest.approx(first.retry_after - 10)

    async def test_retry_after_is_at_least_a_second(self, given: Bench) -> None:
        """No caller is told to retry at once."""
        given.sso.respond(answers.status(429, ("Retry-After", "0")))
        assert (await refused_with(given)).retry_after >= 1

    async def test_back_off_grows(self, given: Bench) -> None:
        """Pauses after transient failures double, up to 30 seconds."""
        given.sso.respond(FAILURES["transient"])
        pauses = []
        given.tokens.start()
        for _ in range(12):
            await given.settled()
            pauses.append(given.state.next_attempt_in)
            await given.clock.advance(pauses[-1])
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
    async def test_old_token_outlives_failures(
        self, given: Bench, down: answers.ScriptedResponse
    ) -> None:
        """While the SSO is down the valid token stays in use to its end, then requests fail."""
        given.sso.script(answers.token("old"))
        given.sso.respond(down)
        await given.obtain()
        while given.clock() < 1000 + 298.9:
            assert given.current == "old"
            assert (await given.obtain()).reveal() == "old"
            assert given.state.is_valid
            await given.pass_time(1, step=0.5)
        await given.pass_time(2, step=0.1)
        assert (await refused_with(given)).reason.code == "sso-unavailable"
        assert not given.state.is_valid
        assert 5 <= len(given.sso.requests) <= 40

    async def test_back_off_begins_anew_at_the_end_of_the_token(self, given: Bench) -> None:
        """The attempts close before it do not make callers wait, as they did with oidc-provider."""
        given.sso.script(answers.token("old", expires_in=5))
        given.sso.respond(FAILURES["transient"])
        await given.obtain()
        while given.current is not None:
            await given.pass_time(0.1)
        tried = len(given.sso.requests)
        await given.pass_time(1.2)
        assert len(given.sso.requests) > tried
        assert (given.state.next_attempt_in or 0) <= 2

    async def test_short_failure_goes_unnoticed(self, given: Bench) -> None:
        """A renewal of a three-second token that fails once is repeated before its end."""
        given.sso.script(answers.token("old", expires_in=3), answers.status(502))
        await given.obtain()
        for _ in range(60):
            assert given.current is not None
            await given.pass_time(0.05)
        assert given.current == "token-1"

    async def test_attempt_after_pause_is_shared(self, given: Bench) -> None:
        """When the pause is over, many requests still cause one token request."""
        given.sso.script(FAILURES["transient"])
        await refused_with(given)
        given.clock.now += 2
        got = await asyncio.gather(*(given.obtain() for _ in range(20)))
        assert {token.reveal() for token in got} == {"token-1"}
        assert len(given.sso.requests) == 2

    async def test_changed_secret(self, given: Bench) -> None:
        """A changed secret ends the pause after a refusal at once."""
        given.sso.script(FAILURES["refused"])
        await refused_with(given)
        given.tokens.fetch_now()
        assert (await given.obtain()).reveal() == "token-1"

    async def test_secret_changed_during_a_request(self, given: Bench) -> None:
        """A refusal of the old secret that comes in after the change starts no pause."""
        given.sso.script(FAILURES["refused"])
        given.sso.hold()
        given.tokens.start()
        await given.sso.wait_for_requests(1)
        given.tokens.fetch_now()
        given.sso.release()
        await given.settled()
        await given.clock.advance(0)
        await given.settled()
        assert given.current == "token-1"

    async def test_broken_source(self, given: Bench, caplog: pytest.LogCaptureFixture) -> None:
        """A bug in a source is a transient failure, shown by its class only, and retried."""

        class Broken:
            name = "default"
            store_key = given.source().store_key
            uses_previous_secret = False
            calls = 0

            async def request(self) -> TokenResponse:
                self.calls += 1
                raise ZeroDivisionError(SECRET)

        source = Broken()
        tokens = given.made()["default"]
        tokens.credential = source
        with pytest.raises(GatewayError, match="sso-unavailable"):
            await tokens.wait_for_token()
        await given.clock.advance(1)
        assert source.calls == 2
        assert "ZeroDivisionError" in caplog.text
        assert SECRET not in caplog.text
        await tokens.close()


class TestStore:
    """What others share."""

    async def test_one_renewal_for_all_of_a_client(self, given: Bench) -> None:
        """Credentials with the same client have the same token, which one of them renews."""
        tokens = given.made("lab", "ward")
        for each in tokens.values():
            each.start()
            await given.settled()
            await each.wait_for_token()
        await given.pass_time(245, step=1.0)
        assert tokens["lab"].current() == tokens["ward"].current()
        assert len(given.sso.requests) == 2
        for each in tokens.values():
            await each.close()

    async def test_due_token_is_renewed(self, given: Bench) -> None:
        """A token at hand that ought to be renewed is used, and renewed at once."""
        await given.obtain()
        given.tokens.stop_renewing()
        given.clock.now += 245
        given.tokens = given.made()["default"]
        given.tokens.start()
        assert given.current == "token-1"
        await given.pass_time(0.6)
        assert given.current == "token-2"

    async def test_rejected_token_is_dropped(self, given: Bench) -> None:
        """Another object of the same client in this process has its successor, without asking."""
        rejected = await given.obtain()
        assert (await given.tokens.replace_rejected(rejected)).reveal() == "token-2"
        after = given.made()["default"]
        after.start()
        assert (await after.wait_for_token()).reveal() == "token-2"
        assert len(given.sso.requests) == 2
        await after.close()

    async def test_an_expired_token_is_no_longer_at_hand(self, given: Bench) -> None:
        """The place of the tokens forgets each at its end."""
        await given.obtain()
        given.tokens.stop_renewing()
        assert len(given.at_hand) == 1
        given.clock.now += 300
        assert len(given.at_hand) == 0
        assert given.current is None

    async def test_rejected_token_is_dropped_for_others(self, given: Bench) -> None:
        """Replicas do not find a rejected token in the store even if there is no new one yet."""
        store = SharedTokens()
        given.tokens = given.made(store=store)["default"]
        rejected = await given.obtain()
        assert store.tokens
        given.sso.respond(answers.status(503))
        with pytest.raises(GatewayError):
            await given.tokens.replace_rejected(rejected)
        assert not store.tokens

    async def test_own_token_is_no_news(self, given: Bench) -> None:
        """When the SSO is to be asked, the token in use does not come back from the store."""
        given.tokens = given.made(store=SharedTokens())["default"]
        await given.obtain()
        given.tokens.fetch_now()
        await given.settled()
        assert given.current == "token-2"

    async def test_token_of_another_replica(self, given: Bench) -> None:
        """A renewal takes the token that another replica fetched meanwhile."""
        store = SharedTokens()
        given.tokens = given.made(store=store)["default"]
        await given.obtain()
        given.clock.now += 205
        fresh = AccessToken("theirs", received_at=given.clock(), lifetime=300, wall_expiry=0)
        await store.put(given.source().store_key, fresh)
        await given.clock.advance(40)
        await given.settled()
        assert given.current == "theirs"
        assert len(given.sso.requests) == 1

    @pytest.mark.parametrize("hangs", [True, False])
    async def test_store_down(self, given: Bench, hangs: bool) -> None:
        """A store that breaks or hangs costs a moment, not the token."""
        store = BreakableStore()
        setattr(store, "hangs" if hangs else "broken", True)
        tokens = given.made(store=store)["default"]
        token = await tokens.wait_for_token()
        assert (await tokens.replace_rejected(token)).reveal() == "token-2"
        await tokens.close()


class TestTelling:
    """What observers, logs and texts are told, and what not."""

    @pytest.mark.parametrize("code", [401, 403])
    async def test_a_refusal_without_a_word(
        self, given: Bench, code: int, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Log and callers learn both causes: a firewall, and an SSO that refuses a client so."""
        given.sso.script(answers.http(code))
        error = await refused_with(given)
        assert error.reason.code == "sso-unavailable"
        assert error.hint == (
            f"SSO: status {code}, a firewall in front, or a wrong address, or a wrong client_id or "
            "secret, which some SSOs refuse like this"
        )
        assert "a wrong client_id or secret, a firewall in front" in caplog.text
        assert "client_id and secret of credentials.default" in caplog.text

    async def test_the_code_of_the_sso(
        self, given: Bench, caplog: pytest.LogCaptureFixture
    ) -> None:
        """A code that RFC 6749 does not have is told as it is."""
        given.sso.script(answers.oauth_error("access_denied", 403))
        error = await refused_with(given)
        assert (error.reason.code, given.state.oauth_error) == ("token-refused", "access_denied")
        assert "error access_denied" in error.hint
        assert "access_denied" in caplog.text

    async def test_observer(self, given: Bench) -> None:
        """Every token request is reported with its outcome, and the expiry in Unix time."""
        given.sso.script(FAILURES["transient"], answers.token("abc", expires_in=30, scope="a b"))
        await refused_with(given)
        await given.pass_time(1)
        assert given.observer.outcomes == ["transient", "ok"]
        (_, expiry) = given.observer.expiries[-1]
        assert expiry == pytest.approx(given.clock.wall() + 30, abs=1)
        assert given.observer.events == [
            ("default", "transient", {"cause": "error status", "status": 503, "error": None}),
            ("default", "ok", {"lifetime": 30.0, "scope": "a b"}),
        ]

    async def test_duration(self, given: Bench) -> None:
        """The duration of a token request is reported in seconds of the monotonic clock."""
        given.sso.hold()
        given.tokens.start()
        await given.sso.wait_for_requests(1)
        given.clock.now += 2.5
        given.sso.release()
        await given.settled()
        assert given.observer.requested == [("default", "ok", 2.5)]

    async def test_states(self, given: Bench) -> None:
        """Readiness sees validity, the last failure and the next attempt."""
        assert not given.state.is_valid
        given.sso.hold()
        given.tokens.start()
        assert given.state.is_fetching
        given.sso.release()
        await given.settled()
        assert given.state.is_valid
        assert given.state.expires_in == 300
        assert 210 <= given.state.next_attempt_in <= 240
        given.sso.respond(FAILURES["refused"])
        await given.pass_time(241, step=10)
        assert given.state.is_valid
        assert given.state.failure == "refused"
        reported = (given.state.cause, given.state.status, given.state.oauth_error)
        assert reported == ("refused", 401, "invalid_client")

    @pytest.mark.parametrize("kind", FAILURES)
    async def test_nothing_leaks(
        self, given: Bench, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No secret and no token stands in a log, an error, a state or anything's repr."""
        caplog.set_level(logging.DEBUG)
        given.sso.script(answers.token("planted-token", expires_in=3), FAILURES[kind])
        token = await given.obtain()
        given.tokens.on_fresh_token_rejected(token)
        given.clock.now += 4
        error = await refused_with(given)
        shown = [caplog.text, repr(error), str(error), error.hint, repr(token), str(token)]
        shown += [f"{token}", repr(given.tokens.state()), repr(given.observer)]
        assert caplog.text
        assert "planted" not in "".join(shown)

    def test_token_compares_by_value(self) -> None:
        """Two tokens are the same when their values are; a token is nothing else."""
        first, same, other = (
            AccessToken(value, received_at=number, lifetime=1, wall_expiry=number)
            for number, value in enumerate(["a", "a", "b"])
        )
        assert first == same
        assert hash(first) == hash(same)
        assert first != other
        assert first != b"Bearer a"
