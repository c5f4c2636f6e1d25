"""The page `/status`: the facts as HTML, without external resources.

It consists of summary cards (tokens, SSO, outbox, …), charts of the last hour, minute by minute,
and tables. The facts come from `gateway.admin.status_facts`.

The page is complete without its script, which only loads newer content from `/status/events`,
counts down in between, shows times in the browser's time zone, and reports when the gateway does
not respond. Every state is shown by a word and a symbol. Sections have ids: the script replaces
those that have changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from gateway.admin.page_rendering import STYLE, headers, page_script, templates
from gateway.health.advice import STATUS_MESSAGES
from gateway.health.health import OPERATOR_STATES
from gateway.health.recent_requests import MINUTES, OTHERS
from gateway.i18n import LANGUAGES, unit_names

_SCRIPT: Final = page_script("status.js")
HEADERS: Final = headers(STYLE, _SCRIPT)

Facts = Mapping[str, Any]

_BAR: Final = 5
_HEIGHT: Final = 60
# Minutes between two marks on the axis.
_STEP: Final = 15
# The smallest maximum of the scale: one request must not look like many.
_FEW: Final = 5


def chart(minutes: Sequence[Facts], kinds: Sequence[str]) -> dict[str, Any]:
    """Return a bar for each minute with a segment for each kind, the newest on the right.

    `most` is the highest number of one minute.
    """
    most = max(sum(minute[kind] for kind in kinds) for minute in minutes)
    floors = [0.0] * len(minutes)
    top = max(most, _FEW)
    return {
        "most": most,
        "width": MINUTES * _BAR,
        "height": _HEIGHT,
        "marks": [place * _BAR for place in range(_STEP, MINUTES, _STEP)],
        "bars": {kind: list(_bars(minutes, kind, top, floors)) for kind in kinds},
        "times": list(_times(minutes)),
    }


def _bars(
    minutes: Sequence[Facts], kind: str, top: int, floors: list[float]
) -> Iterator[dict[str, Any]]:
    """Yield the bars of a kind. Each starts at its minute's height in `floors` and adds to it."""
    for at, minute in enumerate(minutes):
        if minute[kind]:
            # The minimum height keeps one request among many visible.
            height = max(1.5, round(minute[kind] / top * _HEIGHT, 1))
            floors[at] = min(_HEIGHT, floors[at] + height)
            yield {
                "x": (at + MINUTES - len(minutes)) * _BAR,
                "y": f"{_HEIGHT - floors[at]:g}",
                "width": _BAR - 1,
                "height": f"{height:g}",
                "time": minute["from"][11:16],
                "number": minute[kind],
            }


def _times(minutes: Sequence[Facts]) -> Iterator[str]:
    """Yield the times (ISO 8601) of the marks on the axis, and of its beginning."""
    begin = datetime.fromisoformat(minutes[-1]["from"]) - timedelta(minutes=MINUTES - 1)
    yield from ((begin + timedelta(minutes=at)).isoformat() for at in range(0, MINUTES, _STEP))


def _token_state(token: Facts) -> tuple[str, str]:
    """Return `yes`, `degraded` or `no`, and the word for the state of a token."""
    if token["rejected"]:
        return "no", "rejected"
    if not token["valid"]:
        return "no", "missing"
    return ("yes", "valid") if token["failure"] is None else ("degraded", "not-renewed")


def _worst_token(tokens: Mapping[str, Facts]) -> str:
    """Return the name of the credential in the worst state; of equal ones the first to expire."""
    order = ("yes", "degraded", "no")

    def badness(item: tuple[str, Facts]) -> tuple[int, int]:
        token = item[1]
        return order.index(_token_state(token)[0]), -(token["expires_in"] or 0)

    return max(tokens.items(), key=badness)[0]


def _well(tokens: Mapping[str, Facts]) -> int:
    """Return the number of tokens whose state is `yes`."""
    return sum(_token_state(token)[0] == "yes" for token in tokens.values())


def _sso_state(facts: Facts) -> tuple[str, str]:
    """Return `yes`, `no` or `untried`, and the word for the state of the SSO."""
    if facts["sso"]["failure"]:
        return "no", facts["sso"]["failure"]
    answered = any(each["valid"] for each in facts["tokens"].values())
    return ("yes", "answers") if answered else ("untried", "awaited")


def outbox_need(states: Collection[str]) -> str:
    """Return `person` if one has to decide about entries, `waiting` if some wait, else `fine`."""
    if any(state in states for state in OPERATOR_STATES):
        return "person"
    return "waiting" if "waiting" in states or "sending" in states else "fine"


def _outbox_state(facts: Facts) -> tuple[str, str]:
    """Return `yes` or `degraded`, and the word for the state of the outbox."""
    outbox, platform = facts["outbox"], facts["platform"]
    if not outbox.get("available", True):
        return "degraded", "away"
    need = outbox_need({state for state, count in outbox["entries"].items() if count})
    is_stuck = need == "waiting" and platform["state"] == "fails"
    return "degraded" if need == "person" or is_stuck else "yes", need


def render_status_page(facts: Facts) -> str:
    """Return the complete page in the language of the facts."""
    page = templates().get_template("status.html")
    return page.render(
        **_values(facts),
        units=unit_names(facts["language"]),
        addresses={each: f"?lang={each}" for each in LANGUAGES},
        style=STYLE,
        script=_SCRIPT,
    )


def page_update(facts: Facts) -> dict[str, str]:
    """Return the parts of the page that change: `title`, `icon` as a URL, and `main` as HTML."""
    shown: Any = templates().get_template("status_main.html").make_module(_values(facts))
    return {"title": shown.title.unescape(), "icon": str(shown.icon), "main": str(shown)}


def _values(facts: Facts) -> dict[str, Any]:
    """Return the values of the template `status_main.html`."""
    return {
        "facts": facts,
        "language": facts["language"],
        "advice": STATUS_MESSAGES,
        "others": OTHERS,
        "token_state": _token_state,
        "worst_token": _worst_token,
        "well": _well,
        "sso_state": _sso_state,
        "outbox_state": _outbox_state,
        "chart": chart,
    }
