"""The states that the summary cards of the status page show: tokens, SSO and outbox."""

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
    """Return `yes`, `degraded` or `no`, and the key of the word for the state of a token."""
    if token["rejected"]:
        return "no", "rejected"
    if not token["valid"]:
        return "no", "missing"
    return ("yes", "valid") if token["failure"] is None else ("degraded", "not-renewed")


def worst_token(tokens: Mapping[str, SummaryFacts]) -> str:
    """Return the name of the credential in the worst state; of equal ones the first to expire."""
    order = ("yes", "degraded", "no")

    def badness(item: tuple[str, SummaryFacts]) -> tuple[int, int]:
        token = item[1]
        return order.index(token_kind(token)[0]), -(token["expires_in"] or 0)

    return max(tokens.items(), key=badness)[0]


def well(tokens: Mapping[str, SummaryFacts]) -> int:
    """Return the number of tokens whose state is `yes`."""
    return sum(token_kind(token)[0] == "yes" for token in tokens.values())


def sso_state(facts: SummaryFacts) -> tuple[str, str]:
    """Return `yes`, `no` or `untried`, and the key of the word for the state of the SSO."""
    if facts["sso"]["failure"]:
        return "no", facts["sso"]["failure"]
    answered = any(each["valid"] for each in facts["tokens"].values())
    return ("yes", "answers") if answered else ("untried", "awaited")


def outbox_state(facts: SummaryFacts) -> tuple[str, str]:
    """Return `yes` or `degraded`, and the key of the word for the state of the outbox."""
    outbox, platform = facts["outbox"], facts["platform"]
    entries = {state for state, count in outbox["entries"].items() if count}
    person = any(state in entries for state in OPERATOR_STATES)
    told = "person" if person else "waiting" if _WAITING & entries else "fine"
    told = told if outbox.get("available", True) else "away"
    stuck = told == "waiting" and platform["state"] == "fails"
    return "degraded" if person or stuck or told == "away" else "yes", told


def host(url: str) -> str:
    """Return host and port of a URL; a text without them is returned unchanged."""
    return urlsplit(url).netloc or url
