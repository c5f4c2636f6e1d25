"""Plans that showed a fault of the gateway once, some shrunk by hand to what matters."""

from __future__ import annotations

from tests.simulation.plan import Call, Fault, Plan, plan_of

_QUIET = Plan(
    seed=1,
    scenario="tokens",
    order="instants",
    is_coarse=False,
    max_fragment=None,
    lanes=(0,),
    token_lifetime=300,
    seconds=40.0,
    conditional_create=False,
    faults=(),
    calls=(),
)


def _changed(**values: object) -> Plan:
    return Plan(**{**vars(_QUIET), **values})  # type: ignore[arg-type]


FOUND = {
    # The second and third attempts were sent with the token of the first.
    "a token expires before another attempt": _changed(
        token_lifetime=8,
        faults=(Fault(2.0, "platform answers 503 with Retry-After", 40.0, 0.8),),
        calls=tuple(Call(2.0 + moment, 0, "read", 0) for moment in range(30)),
    ),
    # The first request with a new token was told that two had been refused.
    "a new token is refused at its first use": plan_of(293_649_166_748, "tokens"),
    # The next record was bound to one of which blocks were missing.
    "a power failure tears the audit": plan_of(629_014_625_249, "outbox"),
    # The platform failed to tell what it declares, and a conditional create became unclear at once.
    "a verification meets a failing platform": plan_of(9_000_601, "outbox"),
}
