"""Invariants of the tokens of replicas with changing secrets and an unreliable store."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway.errors import GatewayError
from gateway.oauth.token_response import AccessToken, TokenRequestError, TokenResponse
from gateway.oauth.token_store import TokensAtHand, tokens_at_hand
from gateway.oauth.tokens import Tokens
from gateway.secret import Secret
from tests.doubles.clock import FakeClock, run_pending_tasks
from tests.oauth.harness import RecordingObserver, tokens_of
from tests.oauth.replica_doubles import (
    EndpointOfOne,
    FileSource,
    PendingSso,
    SharedStore,
    StoreOfOne,
)

pytestmark = pytest.mark.interpreted

CLIENTS = ("lab", "ward")
REASONS = {"token-refused", "sso-unavailable", "token-rejected"}
TIMES = st.sampled_from([0.05, 0.3, 1.0, 2.5, 7.0, 31.0, 70.0, 250.0])


@dataclass
class Replica:
    """One gateway, as far as tokens go."""

    name: str
    tokens: dict[str, Tokens]
    at_hand: TokensAtHand
    store: StoreOfOne
    given: list[tuple[str, AccessToken]] = field(default_factory=list)

    async def start(self, before: Replica | None = None) -> None:
        for client, tokens in self.tokens.items():
            tokens.start(None if before is None else before.tokens[client])

    async def close(self) -> None:
        for tokens in self.tokens.values():
            await tokens.close()


class ReplicaMachine(RuleBasedStateMachine):
    """Requests, rejections, answers, rotations and deaths in every order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.shared = SharedStore(self.clock)
        self.sso = PendingSso(self.clock)
        self.file = {"text": "s0"}
        self.replicas: dict[str, Replica] = {}
        self.waiting: list[asyncio.Task[None]] = []
        self.leaving: set[str] = set()
        self.born = self.secrets = self.issued = 0
        self.last = dict.fromkeys(CLIENTS, "")

    def _run(self, work: Coroutine[object, object, object]) -> None:
        async def settle() -> None:
            await work
            await run_pending_tasks()

        self.loop.run_until_complete(settle())

    def _pick(self, data: st.DataObject) -> Replica:
        return self.replicas[data.draw(st.sampled_from(sorted(self.replicas)))]

    def _made(self, before: Replica | None = None) -> Replica:
        self.born += 1
        name = f"r{self.born}"
        store = self.sso.stores[name] = StoreOfOne(self.shared, name)
        endpoint = EndpointOfOne(self.sso, name)
        sources = {client: FileSource(endpoint, client, self.file) for client in CLIENTS}
        at_hand = tokens_at_hand(self.clock) if before is None else before.at_hand
        tokens = tokens_of(
            sources,
            clock=self.clock,
            observer=RecordingObserver(),
            at_hand=at_hand,
            store=store,
            seed=self.born,
        )
        made = self.replicas[name] = Replica(name, tokens, at_hand, store)
        return made

    @initialize()
    def first_replica_starts(self) -> None:
        self._run(self._made().start())

    @precondition(lambda self: len(self.replicas) < 3)
    @rule()
    def replica_starts(self) -> None:
        self._run(self._made().start())

    @precondition(lambda self: len(self.replicas) > 1)
    @rule(data=st.data(), killed=st.booleans())
    def replica_leaves(self, data: st.DataObject, killed: bool) -> None:
        """Stop a replica, or kill it without the release of its leases."""
        gone = self._pick(data)
        if killed:
            gone.store.killed = True
            self.shared.orphan(gone.name)
        self._leave(gone)

    @rule(data=st.data())
    def replica_reloads(self, data: st.DataObject) -> None:
        """The settings are read again; tokens are kept as the application keeps them."""
        old = self._pick(data)
        new = self._made(old)
        kept = {client: old.tokens[client].current() for client in CLIENTS}
        self._run(new.start(old))
        new.given = [(client, token) for client, token in kept.items() if token]
        self._leave(old)

    def _leave(self, gone: Replica) -> None:
        self.leaving.add(gone.name)
        del self.replicas[gone.name]
        self._run(gone.close())

    @rule(seconds=TIMES)
    def time_passes(self, seconds: float) -> None:
        self._run(self.clock.advance(seconds))

    @rule(seconds=st.sampled_from([-86_400.0, 86_400.0]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.clock.jump_wall(seconds)

    @rule(away=st.booleans())
    def store_goes_or_comes(self, away: bool) -> None:
        """The shared store is stopped, which loses what it held, or started again."""
        if away:
            self.shared.tokens.clear()
            self.shared.leases.clear()
        self.shared.away = away

    @rule(overlap=st.booleans())
    def file_changes(self, overlap: bool) -> None:
        """Another secret is in the file, perhaps with the one that the SSO takes."""
        self.secrets += 1
        known = sorted(self.sso.takes)[-1]
        self.file["text"] = f"s{self.secrets}" + (f"\n{known}" if overlap else "")

    @rule(data=st.data(), overlap=st.booleans())
    def sso_changes_over(self, data: st.DataObject, overlap: bool) -> None:
        """The SSO takes a secret of the file, for a time perhaps the old ones too."""
        new = data.draw(st.sampled_from(self.file["text"].split("\n")))
        self.sso.takes = ({*self.sso.takes} if overlap else set()) | {new}

    @rule(data=st.data(), client=st.sampled_from(CLIENTS))
    def request_comes(self, data: st.DataObject, client: str) -> None:
        replica = self._pick(data)
        self._ask(replica, client, replica.tokens[client].wait_for_token())

    @precondition(lambda self: any(replica.given for replica in self.replicas.values()))
    @rule(
        data=st.data(),
        verdict=st.sampled_from(
            ["replace_rejected", "on_fresh_token_rejected", "on_token_accepted", "invalidate"]
        ),
    )
    def platform_judges(self, data: st.DataObject, verdict: str) -> None:
        """A request learns what the platform thinks of its token, soon or late."""
        known = sorted(name for name, replica in self.replicas.items() if replica.given)
        replica = self.replicas[data.draw(st.sampled_from(known))]
        client, token = data.draw(st.sampled_from(replica.given))
        if verdict == "replace_rejected":
            self._ask(
                replica, client, replica.tokens[client].replace_rejected(token), rejected=token
            )
            return

        async def tell() -> None:
            getattr(replica.tokens[client], verdict)(token)

        self._run(tell())

    def _ask(
        self,
        replica: Replica,
        client: str,
        work: Coroutine[object, object, AccessToken],
        rejected: AccessToken | None = None,
    ) -> None:
        async def checked() -> None:
            try:
                token = await work
            except GatewayError as error:
                last = {"shutting-down"} if replica.name in self.leaving else set()
                assert error.reason.code in REASONS | last  # noqa: PT017 - both ends are judged
                return
            assert self.clock() < token.expires_at, "an expired token was given out"
            assert token.reveal().startswith(f"{client}:"), "a foreign token was given out"
            assert token != rejected, "the rejected token was given out again"
            replica.given.append((client, token))

        self.waiting.append(self.loop.create_task(checked()))
        self._run(asyncio.sleep(0))

    @precondition(lambda self: self.sso.pending)
    @rule(
        data=st.data(),
        lifetime=st.sampled_from([0.2, 3.0, 60.0, 300.0, 86_400.0]),
        same=st.booleans(),
    )
    def sso_answers(self, data: st.DataObject, lifetime: float, same: bool) -> None:
        """A right secret gets a token, a new one or the one before; a wrong one is refused."""
        one = data.draw(st.sampled_from(self.sso.pending))
        if one.secret not in self.sso.takes:
            one.answer.set_exception(
                TokenRequestError("refused", "refused", oauth_error="invalid_client", status=401)
            )
        else:
            if not same or not self.last[one.client]:
                self.issued += 1
                self.last[one.client] = f"{one.client}:{self.issued}"
            value = Secret(self.last[one.client])
            one.answer.set_result(TokenResponse(value, lifetime, "expires_in", self.clock()))
        self._run(asyncio.sleep(0))

    @precondition(lambda self: self.sso.pending)
    @rule(data=st.data(), kind=st.sampled_from(["throttled", "transient", "bug"]))
    def sso_fails(self, data: st.DataObject, kind: str) -> None:
        one = data.draw(st.sampled_from(self.sso.pending))
        failure = (
            ZeroDivisionError()
            if kind == "bug"
            else TokenRequestError(kind, "error status", retry_after=20.0)
        )
        one.answer.set_exception(failure)
        self._run(asyncio.sleep(0))

    @invariant()
    def tokens_in_use_are_alive_and_ours(self) -> None:
        for replica in self.replicas.values():
            for client in CLIENTS:
                token = replica.tokens[client].current()
                if token is not None:
                    assert self.clock() < token.expires_at
                    assert token.reveal().startswith(f"{client}:")

    @invariant()
    def one_asks_at_a_time(self) -> None:
        """While the store is there, only the replica whose turn it is asks the SSO."""
        assert self.sso.violations == []

    @invariant()
    def never_idle_for_good(self) -> None:
        """Every replica asks, waits for another that asks, or knows when it will."""
        for replica in self.replicas.values():
            for state in (tokens.state() for tokens in replica.tokens.values()):
                assert state.is_fetching or state.next_attempt_in is not None

    @invariant()
    def failed_checks_come_to_light(self) -> None:
        """What a request found wrong is raised here."""
        for task in [task for task in self.waiting if task.done()]:
            self.waiting.remove(task)
            if not task.cancelled():
                task.result()

    def teardown(self) -> None:
        """Closing leaves nothing behind: no lease, no timer, no request."""
        try:
            for replica in list(self.replicas.values()):
                self._leave(replica)
            for task in self.waiting:
                task.result()
            assert self.sso.pending == []
            assert self.clock.next_due() is None
            assert self.shared.away or not [
                held for held in self.shared.leases.values() if held.ends is None
            ]
        finally:
            self.loop.close()


TestReplicas = ReplicaMachine.TestCase
TestReplicas.settings = settings(max_examples=60, stateful_step_count=50)
