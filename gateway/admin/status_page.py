"""The page `/status`: the facts as HTML, without external resources.

It consists of summary cards (tokens, SSO, outbox, …), charts of the last hour, minute by minute,
and tables. The facts come from `gateway.admin.status_facts`.

The page is complete without its script, which only loads newer content from `/status/events`,
counts down in between, shows times in the browser's time zone, and reports when the gateway does
not respond. Every state is shown by a word and a symbol. Sections have ids: the script replaces
those that have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from gateway.admin.page_rendering import (
    SCRIPT,
    STYLE,
    format_duration,
    format_number,
    format_percentage,
    tab_icon,
)
from gateway.admin.status_facts import OPERATOR_STATES
from gateway.health.advice import STATUS_WORDS
from gateway.health.recent_requests import MINUTES, OTHERS
from gateway.i18n import LANGUAGES, format_span, language_name, unit_names
from gateway.pipeline.callers import ANONYMOUS
from gateway.templates import environment

if TYPE_CHECKING:
    from jinja2 import Environment

    from gateway.i18n import Words

Minutes = Sequence[Mapping[str, Any]]

_BAR: Final = 5
_HEIGHT: Final = 60
# Minutes between two marks on the axis.
_STEP: Final = 15
# The smallest maximum of the scale: one request must not look like many.
_FEW: Final = 5


def chart(minutes: Minutes, kinds: Sequence[str], words: Words) -> dict[str, Any]:
    """Return a bar for each minute with a segment for each kind, the newest on the right.

    The result is the data of a template. `empty` is the key of the text that replaces the chart if
    all values are 0, else None.
    """
    most = max(sum(minute[kind] for kind in kinds) for minute in minutes)
    floors = [0.0] * len(minutes)
    empty = "no-errors" if any(minute["requests"] for minute in minutes) else "no-requests"
    top = max(most, _FEW)
    return {
        "kind": kinds[0],
        "most": most,
        "empty": None if most else empty,
        "width": MINUTES * _BAR,
        "height": _HEIGHT,
        "marks": [place * _BAR for place in range(_STEP, MINUTES, _STEP)],
        "bars": {kind: list(_bars(minutes, kind, top, floors, words)) for kind in kinds},
        "times": list(_times(minutes)),
    }


def _bars(
    minutes: Minutes, kind: str, top: int, floors: list[float], words: Words
) -> Iterator[dict[str, Any]]:
    """Yield the bars of a kind. Each starts at its minute's height in `floors` and adds to it."""
    for at, minute in enumerate(minutes):
        if minute[kind]:
            # The minimum height keeps one request among many visible.
            height = max(1.5, round(minute[kind] / top * _HEIGHT, 1))
            floors[at] = min(_HEIGHT, floors[at] + height)
            told = f"{words[kind]} {format_number(minute[kind], words)}"
            yield {
                "x": (at + MINUTES - len(minutes)) * _BAR,
                "y": f"{_HEIGHT - floors[at]:g}",
                "width": _BAR - 1,
                "height": f"{height:g}",
                "title": f"{minute['from'][11:16]} UTC: {told}",
            }


def _times(minutes: Minutes) -> Iterator[str]:
    """Yield the times (ISO 8601) of the marks on the axis, and of its beginning."""
    begin = datetime.fromisoformat(minutes[-1]["from"]) - timedelta(minutes=MINUTES - 1)
    yield from ((begin + timedelta(minutes=at)).isoformat() for at in range(0, MINUTES, _STEP))


_SYMBOLS: Final = {"yes": "✔", "degraded": "⚠", "no": "✖", "untried": "?"}
# States of queued writes.
_WAITING: Final = frozenset({"waiting", "sending"})

SummaryFacts = Mapping[str, Any]


def _token_kind(token: SummaryFacts) -> tuple[str, str]:
    """Return `yes`, `degraded` or `no`, and the key of the word for the state of a token."""
    if token["rejected"]:
        return "no", "rejected"
    if not token["valid"]:
        return "no", "missing"
    return ("yes", "valid") if token["failure"] is None else ("degraded", "not-renewed")


def _worst_token(tokens: Mapping[str, SummaryFacts]) -> str:
    """Return the name of the credential in the worst state; of equal ones the first to expire."""
    order = ("yes", "degraded", "no")

    def badness(item: tuple[str, SummaryFacts]) -> tuple[int, int]:
        token = item[1]
        return order.index(_token_kind(token)[0]), -(token["expires_in"] or 0)

    return max(tokens.items(), key=badness)[0]


def well(tokens: Mapping[str, SummaryFacts]) -> int:
    """Return the number of tokens whose state is `yes`."""
    return sum(_token_kind(token)[0] == "yes" for token in tokens.values())


def _sso_state(facts: SummaryFacts) -> tuple[str, str]:
    """Return `yes`, `no` or `untried`, and the key of the word for the state of the SSO."""
    if facts["sso"]["failure"]:
        return "no", facts["sso"]["failure"]
    answered = any(each["valid"] for each in facts["tokens"].values())
    return ("yes", "answers") if answered else ("untried", "awaited")


def _outbox_state(facts: SummaryFacts) -> tuple[str, str]:
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


# Callers that the settings do not name.
_UNNAMED = {ANONYMOUS.name: "anonymous", OTHERS: "others"}


@cache
def templates() -> Environment:
    """Return the environment of templates with the filters and globals of the operators' pages."""
    from markupsafe import escape

    made = environment()
    made.filters |= {
        "span": format_span,
        "number": format_number,
        "duration": format_duration,
        "language_name": language_name,
        "host": host,
        "setting": _setting_text,
        # Formats a text whose values may be markup.
        "fill": lambda text, **values: escape(text).format(**values),
    }
    made.globals |= {
        "token_kind": _token_kind,
        "worst_token": _worst_token,
        "well": well,
        "sso_state": _sso_state,
        "outbox_state": _outbox_state,
    }
    return made


def render_status_page(facts: Mapping[str, Any]) -> str:
    """Return the complete page in the language of the facts."""
    language = facts["language"]
    words = STATUS_WORDS[language]
    return (
        templates()
        .get_template("status.html")
        .render(
            language=language,
            words=words,
            units=unit_names(words),
            addresses={each: f"?lang={each}" for each in LANGUAGES},
            environment=facts["settings"].get("environment", ""),
            style=STYLE,
            script=SCRIPT,
            **page_update(facts),
        )
    )


def page_update(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of the page that change: `title`, `icon` as a URL, and `main` as HTML."""
    words, answer = STATUS_WORDS[facts["language"]], facts["care"]["answer"]
    title = f"{_SYMBOLS[answer]} {words[f'answer:{answer}']} · {words['title']}"
    charts = list(_charts(facts["last_hour"], words))
    main = templates().get_template("status_main.html")
    shown = main.render(facts=facts, words=words, charts=charts, unnamed=_UNNAMED)
    return {"title": title, "icon": tab_icon(answer), "main": shown}


def summary_cards(facts: Mapping[str, Any], words: Words) -> str:
    """Return the summary cards as HTML."""
    return str(templates().get_template("status_cards.html").module.cards(facts, words))  # type: ignore[attr-defined]


def _charts(hour: Mapping[str, Any], words: Words) -> Iterator[dict[str, Any]]:
    if hour["minutes"]:
        yield _figure(hour, ("requests",), words)
        yield _figure(hour, ("errors", "refusals"), words)


def _figure(hour: Mapping[str, Any], kinds: Sequence[str], words: Words) -> dict[str, Any]:
    """Return a chart with the total and the peak that are shown above it."""
    kind, drawn = kinds[0], chart(hour["minutes"], kinds, words)
    peak = f"{words['most']}: {format_number(drawn['most'], words)}" if drawn["most"] else ""
    total = f"{words[kind]}: {format_number(hour[kind], words)}"
    if kind == "errors" and hour["errors"]:
        total += f" ({format_percentage(hour['errors'], hour['requests'], words)})"
    if kind == "errors" and hour["refusals"]:
        total += f". {words['refusals']}: {format_number(hour['refusals'], words)}"
    return {**drawn, "total": total, "peak": peak}


def _setting_text(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
