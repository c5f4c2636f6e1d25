"""What holds in every run. Each function yields a sentence for each violation."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise

from tests.simulation.history import Effect, Outcome
from tests.simulation.plan import SSO_TIMEOUT
from tests.simulation.world import PROMISED, Run

# Seconds for which no token is fetched after a fresh one was refused.
_LONGEST_PAUSE = 30.0
# Seconds that the end of a response may take to the gateway.
_ON_THE_WAY = 0.1
# Seconds of a fetch, which may ask twice.
_LONGEST_FETCH = 2 * SSO_TIMEOUT
# Seconds after which a record is in the audit file, even if the process is killed then.
_AUDIT_DELAY = 1.0
# Of a write: done, or accepted. Of a read: also that there is nothing yet.
_SUCCESSES = (200, 201, 202, 404)
# Seconds after a fault in which the gateway may still fail by it: the longest back-off of token
# requests, an open circuit, connections that were broken.
_RECOVERY = 32.0


def the_run_ends(run: Run) -> Iterator[str]:
    """No task of the gateway ends with an error, and nothing waits forever."""
    yield from run.history.errors


def no_request_is_sent_without_a_valid_token(run: Run) -> Iterator[str]:
    """The platform gets only tokens that the SSO gave and that had not expired when sent."""
    for arrival in run.history.arrivals:
        issued = run.history.tokens.get(arrival.token or "")
        if issued is None:
            yield f"{arrival.method} {arrival.target} has no token of the SSO"
        elif arrival.sent_at > issued.expires_at:
            late = arrival.sent_at - issued.expires_at
            yield f"{arrival.method} {arrival.target} was sent {late:.3f} s after its token expired"


def each_caller_uses_its_own_credential(run: Run) -> Iterator[str]:
    """A caller's request carries a token of the credential that the settings name for it."""
    credentials = {outcome.request_id: outcome.credential for outcome in run.history.outcomes}
    for arrival in run.history.arrivals:
        issued = run.history.tokens.get(arrival.token or "")
        expected = credentials.get(arrival.request_id)
        if issued is not None and expected is not None and issued.credential != expected:
            yield f"[{arrival.request_id}] carried {issued.token}, expected one of {expected}"


def no_caller_sees_a_refused_token(run: Run) -> Iterator[str]:
    """The platform's 401 is the gateway's affair: a caller never gets one."""
    for outcome in run.history.outcomes:
        if outcome.status == 401 and not _reason(outcome):
            yield f"[{outcome.request_id}] got 401"


def a_token_counts_as_rejected_after_two(run: Run) -> Iterator[str]:
    """`token-rejected` needs two tokens that the platform has refused not long before.

    Or the platform refused one and, however long before, the token before it: the SSO may have been
    away since.
    """
    for outcome in run.history.outcomes:
        if _reason(outcome) != "token-rejected":
            continue
        given = [
            asked.token
            for asked in run.history.token_requests
            if asked.credential == outcome.credential and asked.token is not None
        ]
        refused_at = {
            arrival.token: arrival.at
            for arrival in run.history.arrivals
            if arrival.status == 401 and arrival.at <= outcome.ended_at and arrival.token in given
        }
        recent = [
            token for token, at in refused_at.items() if at >= outcome.sent_at - _LONGEST_PAUSE
        ]
        before = [token for token, following in pairwise(given) if following in recent]
        if len({*recent, *(refused_at.keys() & before)}) < 2:
            yield f"[{outcome.request_id}] got token-rejected, refused were only {sorted(recent)}"


def one_token_request_at_a_time(run: Run) -> Iterator[str]:
    """A process has at most one token request of a credential under way."""
    by_client = defaultdict(list)
    for asked in run.history.token_requests:
        by_client[asked.process, asked.credential].append(asked)
    for (_, credential), requests in by_client.items():
        # What waits at a cut link may arrive in another order. One that was given up as it was sent
        # comes before the next one of that instant.
        ordered = sorted(requests, key=lambda asked: (asked.sent_at, asked.ended_at or math.inf))
        for before, asked in pairwise(ordered):
            # Its end had not even left the SSO, or the gateway, when the next one was sent.
            if before.ended_at is not None and asked.sent_at < before.ended_at:
                yield f"{credential}: a token request at {asked.sent_at - 1000:.3f} during another"


def a_session_is_renewed_once(run: Run) -> Iterator[str]:
    """No refresh token is used while it is used already, nor after the SSO has replaced it.

    A response that was lost is the one reason to use it again.
    """
    for renewal in run.history.renewals:
        first = renewal.of_first
        if first is None or first.process != renewal.asked.process:
            continue
        # What waits at a cut link may arrive in another order.
        before, asked = sorted((first, renewal.asked), key=lambda asked: asked.sent_at)
        if before.ended_at is None or asked.sent_at < before.ended_at:
            yield f"{asked.credential}: two renewals at {asked.sent_at - 1000:.3f}"
            continue
        # Its connection may have been waited for, so that the response came too late.
        begun = before.sent_at - _LONGEST_FETCH
        if not _is_disturbed(run, begun, before.ended_at + _ON_THE_WAY):
            yield f"{asked.credential}: renewed again at {asked.sent_at - 1000:.3f}"


def a_session_ends_only_if_the_sso_refuses_it(run: Run) -> Iterator[str]:
    """An outage of the SSO or the platform signs nobody out."""
    refused = {asked.credential for asked in run.history.token_requests if not asked.is_valid}
    for outcome in run.history.outcomes:
        if outcome.status == 401 and outcome.is_signed_in and outcome.credential not in refused:
            yield f"[{outcome.request_id}] of {outcome.credential}: the session has ended"


def no_token_is_fetched_while_one_is_young(run: Run) -> Iterator[str]:
    """No token request follows within half of the lifetime of a token that was not refused."""
    refused = {arrival.token for arrival in run.history.arrivals if arrival.status == 401}
    last = {}
    for asked in sorted(run.history.token_requests, key=lambda asked: asked.sent_at):
        client = asked.process, asked.credential
        issued = last.get(client)
        if asked.token is not None:
            last[client] = run.history.tokens[asked.token]
        if issued is None or issued.token in refused or issued.revoked_at is not None:
            continue
        young_until = issued.issued_at + 0.3 * run.plan.token_lifetime
        # A response that was lost is repeated at once; a reload may ask with another secret.
        was_seen = any(arrival.token == issued.token for arrival in run.history.arrivals)
        if was_seen and asked.sent_at < young_until and not run.history.reloads:
            yield f"{asked.credential}: asked again {asked.sent_at - issued.issued_at:.3f} s later"


def a_write_takes_effect_once_or_is_reported_as_unclear(run: Run) -> Iterator[str]:
    """What a caller is told of a write is what the platform knows of it."""
    effects = _effects_by_content(run)
    # An unclear entry blocks the writes of the same patient until a person has decided.
    unclear = [outcome.lane for outcome in run.history.outcomes if _is_unclear(outcome.final)]
    blocked = set(unclear)
    if run.history.unclear > len(unclear):
        # One of them is of a caller that was never told.
        blocked |= {outcome.lane for outcome in run.history.outcomes if not outcome.status}
    for outcome in run.history.outcomes:
        if outcome.kind == "read" or (outcome.final == "waiting" and outcome.lane in blocked):
            continue
        count = len(effects[outcome.content])
        yield from _judge(outcome, count, is_repeatable=outcome.kind == "write")


def no_write_is_unclear_that_can_be_verified(run: Run) -> Iterator[str]:
    """Only what can neither be repeated nor looked for ends in doubt."""
    for outcome in run.history.outcomes:
        if outcome.kind != "bare create" and outcome.status == 202 and _is_unclear(outcome.final):
            yield f"[{outcome.request_id}] {outcome.kind} {outcome.resource} is unclear"


def _is_unclear(state: str) -> bool:
    return "unclear" in state or "upstream-failed" in state


def _judge(outcome: Outcome, count: int, *, is_repeatable: bool) -> Iterator[str]:
    what = f"[{outcome.request_id}] {outcome.kind} {outcome.resource}"
    # An update with the resource's id may be sent twice; a create never.
    if count > 1 and not is_repeatable:
        yield f"{what} took effect {count} times"
    if outcome.status in (200, 201) and not count:
        yield f"{what} was answered {outcome.status} and took no effect"
    if outcome.status != 202:
        return
    state = outcome.final
    if state[:2] == "20" and not count:
        yield f"{what} was accepted and is delivered ({state}), and took no effect"
    elif state in ("waiting", "no response") or state.startswith("status"):
        yield f"{what} was accepted and is lost or waits: {state}"
    elif state[:2] != "20" and not _is_unclear(state) and count:
        yield f"{what} took effect and is reported as {state}"


def versions_of_a_resource_take_effect_in_order(run: Run) -> Iterator[str]:
    """No older version of a resource takes effect after a newer one.

    A caller that has left without a response knows of no order: its request may be on the way.
    """
    left = {outcome.content for outcome in run.history.outcomes if not outcome.status}
    newest: dict[str, int] = {}
    for effect in run.history.effects:
        version = int(effect.content.rpartition("-")[2])
        if version < newest.get(effect.resource, 0) and effect.content not in left:
            yield f"{effect.content} took effect after version {newest[effect.resource]}"
        newest[effect.resource] = max(version, newest.get(effect.resource, 0))


def each_response_belongs_to_its_request(run: Run) -> Iterator[str]:
    """No caller gets an answer to another request."""
    for outcome in run.history.outcomes:
        if not outcome.status:
            continue
        if outcome.fields.get("x-request-id") != outcome.request_id:
            yield f"[{outcome.request_id}] got the response of {outcome.fields.get('x-request-id')}"
        # The platform puts the request's id into what is read, and returns what is written.
        expected = outcome.request_id if outcome.kind == "read" else outcome.content
        if outcome.status in (200, 201) and f'"{expected}"'.encode() not in outcome.body:
            yield f"[{outcome.request_id}] got the body of another response"


def every_exchange_has_one_audit_record(run: Run) -> Iterator[str]:
    """The audit has each exchange once, in a chain that verifies."""
    yield from run.history.audit_problems
    records = Counter(
        record["request_id"] for record in run.history.audit if record["event"] == "exchange"
    )
    # A killed process may take those of its last moment along.
    killed = [moment for host, moment in run.history.ends.items()]
    for outcome in run.history.outcomes:
        count = records[outcome.request_id]
        if count > 1:
            yield f"[{outcome.request_id}] has {count} audit records"
        near_end = any(
            outcome.sent_at <= moment <= outcome.ended_at + _AUDIT_DELAY for moment in killed
        )
        if outcome.status and not count and not near_end:
            yield f"[{outcome.request_id}] was answered and has no audit record"


def no_request_fails_without_a_cause(run: Run) -> Iterator[str]:
    """A reload is no reason for a failure, nor is a fault that is long over."""
    for outcome in run.history.outcomes:
        if outcome.manner or outcome.status in _SUCCESSES:
            continue
        if not _is_disturbed(run, outcome.sent_at - _RECOVERY, outcome.ended_at):
            yield f"[{outcome.request_id}] got {outcome.status} {_reason(outcome)} without a fault"


def nothing_is_left_behind(run: Run) -> Iterator[str]:
    """A stopped gateway has no task and no connection."""
    yield from run.history.leaks


def all_is_idle_soon_after_the_faults(run: Run) -> Iterator[str]:
    """Deliveries and requests end, and the gateway is ready, within the promised time."""
    if run.history.idle_after is None:
        yield f"not idle {PROMISED:g} s after the last fault; {run.history.readiness[-1:]}"


def a_ready_gateway_has_a_valid_token(run: Run) -> Iterator[str]:
    """`/readyz` says ready only while there is a token that has not expired."""
    for moment, is_ready, _ in run.history.readiness:
        valid = any(
            token.issued_at <= moment < token.expires_at for token in run.history.tokens.values()
        )
        if is_ready and not valid:
            yield f"ready at {moment - 1000:.3f} without any valid token"


def _is_disturbed(run: Run, since: float, until: float) -> bool:
    return any(begin <= until and since <= end for begin, end in run.history.disturbed)


def _reason(outcome: Outcome) -> str:
    return outcome.fields.get("x-gateway-error", "")


def _effects_by_content(run: Run) -> dict[str, list[Effect]]:
    effects = defaultdict(list)
    for effect in run.history.effects:
        effects[effect.content].append(effect)
    return effects


INVARIANTS: tuple[Callable[[Run], Iterator[str]], ...] = (
    the_run_ends,
    no_request_is_sent_without_a_valid_token,
    each_caller_uses_its_own_credential,
    no_caller_sees_a_refused_token,
    a_token_counts_as_rejected_after_two,
    one_token_request_at_a_time,
    a_session_is_renewed_once,
    a_session_ends_only_if_the_sso_refuses_it,
    no_token_is_fetched_while_one_is_young,
    a_write_takes_effect_once_or_is_reported_as_unclear,
    no_write_is_unclear_that_can_be_verified,
    versions_of_a_resource_take_effect_in_order,
    each_response_belongs_to_its_request,
    every_exchange_has_one_audit_record,
    nothing_is_left_behind,
    all_is_idle_soon_after_the_faults,
    no_request_fails_without_a_cause,
    a_ready_gateway_has_a_valid_token,
)


def violations(run: Run) -> list[tuple[str, str]]:
    """Return the names of violated invariants, each with a sentence."""
    return [(each.__name__, text) for each in INVARIANTS for text in each(run)]
