"""What the cards at the top of the status page decide: which token, which sign for which state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.admin.status.state import OPERATOR_STATES

SYMBOLS: Final = {"yes": "✔", "degraded": "⚠", "no": "✖", "untried": "?"}
# States of queued writes.
_WAITING: Final = frozenset({"waiting", "sending"})

SummaryFacts = Mapping[str, Any]


def token_kind(token: SummaryFacts) -> tuple[str, str]:
    """`yes`, `degraded` or `no`, and the word for it."""
    if token["rejected"]:
        return "no", "rejected"
    if not token["valid"]:
        return "no", "missing"
    return ("yes", "valid") if token["failure"] is None else ("degraded", "not-renewed")


def worst_token(tokens: Mapping[str, SummaryFacts]) -> str:
    """The name of the credential which is worst off."""
    order = ("yes", "degraded", "no")

    def badness(item: tuple[str, SummaryFacts]) -> tuple[int, int]:
        token = item[1]
        return order.index(token_kind(token)[0]), -(token["expires_in"] or 0)

    return max(tokens.items(), key=badness)[0]


def well(tokens: Mapping[str, SummaryFacts]) -> int:
    """How many tokens are well."""
    return sum(token_kind(token)[0] == "yes" for token in tokens.values())


def sso_state(facts: SummaryFacts) -> tuple[str, str]:
    """`yes`, `no` or `untried`, and the word for it."""
    if facts["sso"]["failure"]:
        return "no", facts["sso"]["failure"]
    answered = any(each["valid"] for each in facts["tokens"].values())
    return ("yes", "answers") if answered else ("untried", "awaited")


def outbox_state(facts: SummaryFacts) -> tuple[str, str]:
    """`yes` or `degraded`, and the word for it."""
    outbox, platform = facts["outbox"], facts["platform"]
    entries = {state for state, count in outbox["entries"].items() if count}
    person = any(state in entries for state in OPERATOR_STATES)
    told = "person" if person else "waiting" if _WAITING & entries else "fine"
    told = told if outbox.get("available", True) else "away"
    stuck = told == "waiting" and platform is not None and platform["state"] == "fails"
    return "degraded" if person or stuck or told == "away" else "yes", told


def host(url: str) -> str:
    """The host and port of a URL."""
    return urlsplit(url).netloc or url
