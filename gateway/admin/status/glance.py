"""The summary cards of the status page: token, SSO, platform, outbox and workers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from html import escape
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.admin.status.markup import (
    Html,
    Words,
    code_element,
    countdown,
    format_number,
    format_span,
    mark_commands,
    no_break,
    time_element,
    to_html,
)
from gateway.admin.status.state import OPERATOR_STATES

SYMBOLS: Final = {"yes": "✔", "degraded": "⚠", "no": "✖", "untried": "?"}
_PLATFORM: Final = {"answers": "yes", "doubtful": "degraded", "fails": "no", "untried": "untried"}
# States of entries that are delivered without an operator.
_WAITING: Final = frozenset({"waiting", "sending"})

SummaryFacts = Mapping[str, Any]


def summary_cards(facts: SummaryFacts, words: Words) -> str:
    """Return all cards as HTML; cards without facts are left out."""
    return f'<div id="glance" class="glance">{"".join(_cards(facts, words))}</div>'


def token_state(token: SummaryFacts, words: Words) -> str:
    """Return the state of a token as a symbol and a text."""
    kind, state = _token_card_status(token)
    return _with_icon(kind, words[state])


def token_failure(token: SummaryFacts, words: Words) -> str:
    """Return why the last token request failed, and what the SSO reported."""
    told = [escape(words[f"cause:{token['cause']}"])]
    if token["status"] is not None:
        told.append(no_break(f"HTTP {token['status']}"))
    if token["oauth_error"] not in (None, "other"):
        told.append(code_element(token["oauth_error"]))
    if token["oauth_description"] is not None:
        told.append(escape(f"“{token['oauth_description']}”"))
    return Html(", ".join(told))


def _cards(facts: SummaryFacts, words: Words) -> Iterator[str]:
    if facts["tokens"]:
        yield _token(facts["tokens"], words)
    if facts["sso"] is not None:
        yield _sso(facts, words)
    if facts["platform"] is not None:
        yield _platform(facts, words)
    if facts["outbox"] is not None:
        yield _outbox(facts, words)
    if facts.get("workers") is not None:
        yield _workers(facts["workers"], words)


def _card(title: str, value: str, *details: str) -> str:
    lines = "".join(f"<p>{to_html(detail)}</p>" for detail in details if detail)
    return f'<section class="card"><h3>{escape(title)}</h3><b>{to_html(value)}</b>{lines}</section>'


def _with_icon(kind: str, text: str) -> str:
    return Html(f'<span class="{kind}">{SYMBOLS[kind]} {to_html(text)}</span>')


def _token_card_status(token: SummaryFacts) -> tuple[str, str]:
    """Return `yes`, `degraded` or `no`, and the key of the text for it."""
    if token["rejected"]:
        return "no", "rejected"
    if not token["valid"]:
        return "no", "missing"
    return ("yes", "valid") if token["failure"] is None else ("degraded", "not-renewed")


def _token(tokens: Mapping[str, SummaryFacts], words: Words) -> str:
    """Return the card of the credential in the worst state."""
    order = ("yes", "degraded", "no")

    def badness(item: tuple[str, SummaryFacts]) -> tuple[int, int]:
        token = item[1]
        return order.index(_token_card_status(token)[0]), -(token["expires_in"] or 0)

    name, token = max(tokens.items(), key=badness)
    kind, state = _token_card_status(token)
    lasts = kind != "no" and token["expires_in"] is not None
    left, again = (countdown(token[key], words) for key in ("expires_in", "next_attempt_in"))
    attempt = words["again_in" if kind != "yes" else "renewed_in"]
    return _card(
        f"{words['token']}: {words['expires_in']}" if lasts else words["token"],
        _with_icon(kind, left if lasts else words[state]),
        words[state] if lasts else "",
        Html(f"{escape(attempt)} {again}") if token["next_attempt_in"] is not None else "",
        *_credential(name, tokens, words),
    )


def _credential(name: str, tokens: Mapping[str, SummaryFacts], words: Words) -> Iterable[str]:
    """Yield, if there are several, the credential's name and how many have a good state."""
    if len(tokens) > 1:
        good = sum(_token_card_status(token)[0] == "yes" for token in tokens.values())
        yield Html(f"{escape(words['credential'])}: {code_element(name)}")
        yield words["good_of"].format(good=good, all=len(tokens))


def _sso(facts: SummaryFacts, words: Words) -> str:
    sso = facts["sso"]
    kind = sso["failure"]
    answered = any(each["valid"] for each in facts["tokens"].values())
    state = ("no", kind) if kind else ("yes", "answers") if answered else ("untried", "awaited")
    told = (
        token_failure(each, words) for each in facts["tokens"].values() if each["failure"] == kind
    )
    return _card(
        words["sso"],
        _with_icon(state[0], words[f"sso:{state[1]}"]),
        _host(sso["url"]),
        Html(f"{escape(words['failure'])}: {next(told, words['none'])}") if kind else "",
    )


def _platform(facts: SummaryFacts, words: Words) -> str:
    platform = facts["platform"]
    probe, alias = platform["probe"], platform.get("missing_alias")
    counts = [
        f"{words[f'connections:{state}']} {count}"
        for state, count in platform["connections"].items()
        if count
    ]
    return _card(
        words["platform"],
        _with_icon(_PLATFORM[platform["state"]], words[platform["reason"]]),
        _host(platform["url"]),
        mark_commands(words["missing_alias"].format(alias=alias)) if alias else "",
        Html(escape(words["since"]).format(at=time_element(platform["since"]))),
        Html(
            f"{escape(words['asked_itself'])} {time_element(probe['at'])}: {words[probe['found']]}"
        )
        if probe
        else "",
        f"{words['inflight']}: {facts['inflight']}",
        f"{words['connections']}: {', '.join(counts) or 0}",
    )


def _host(url: str) -> str:
    return urlsplit(url).netloc or url


def _outbox(facts: SummaryFacts, words: Words) -> str:
    outbox, platform = facts["outbox"], facts["platform"]
    entries = {state: count for state, count in outbox["entries"].items() if count}
    person = any(state in entries for state in OPERATOR_STATES)
    told = "person" if person else "waiting" if _WAITING & entries.keys() else "fine"
    told = told if outbox.get("available", True) else "away"
    stuck = told == "waiting" and platform is not None and platform["state"] == "fails"
    counts = ", ".join(
        f"{words.get(f'entry:{state}', state)} {format_number(n, words)}"
        for state, n in entries.items()
    )
    oldest = outbox["oldest_seconds"]
    return _card(
        words["outbox"],
        _with_icon(
            "degraded" if person or stuck or told == "away" else "yes", words[f"outbox:{told}"]
        ),
        mark_commands(words[f"outbox:{told}:todo"]),
        counts,
        f"{words['oldest']}: {no_break(format_span(round(oldest), words))}" if oldest else "",
        Html(
            f'<a href="outbox?lang={facts.get("language", "")}">{escape(words["outbox:page"])}</a>'
        ),
    )


def _workers(workers: SummaryFacts, words: Words) -> str:
    kind = "yes" if workers["answering"] == workers["configured"] else "degraded"
    return _card(words["workers"], _with_icon(kind, words["workers:of"].format(**workers)))
