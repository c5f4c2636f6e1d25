"""The page `/status`: facts and components of the health as HTML, without external resources.

It consists of summary cards (tokens, SSO, outbox, …), charts of the last hour, minute by minute,
and tables. The facts come from `gateway.admin.status_facts`, the components from
`gateway.health.health`, which judges; this module chooses words and symbols.

The page is complete without its script, which only loads newer content from `/status/events`,
counts down in between, shows times in the browser's time zone, and reports when the gateway does
not respond. Every state is shown by a word and a symbol. Sections have ids: the script replaces
those that have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from gateway.admin.page_rendering import STYLE, headers, page_script, templates
from gateway.guidance import COMPONENT_GUIDANCE, PLATFORM_CAUSES
from gateway.health.health import ANSWER_WORDS, CARE_ANSWERS, CARE_QUESTION
from gateway.health.recent_requests import MINUTES, OTHERS
from gateway.i18n import LANGUAGES, unit_names
from gateway.oauth.token_failures import TOKEN_CAUSES

if TYPE_CHECKING:
    from gateway.health.health import Component

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


# Symbol and word for the state of a token, by the reason of its component.
_TOKEN_STATES: Final = {
    "fine": ("yes", "valid"),
    "secret-refused": ("yes", "valid"),
    "renewal-fails": ("degraded", "not-renewed"),
    "token-awaited": ("no", "missing"),
    "token-refused": ("no", "missing"),
    "sso-unavailable": ("no", "missing"),
    "platform-refuses": ("no", "rejected"),
}
_SYMBOLS: Final = ("yes", "degraded", "no")


def _token_states(facts: Facts, components: Sequence[Component]) -> dict[str, tuple[str, str]]:
    """Return symbol and word for the token of every credential."""
    # The token of a credential that only the audit uses has a component where it is not well.
    reasons = {each.about: each.reason for each in components if each.name in ("token", "audit")}
    return {name: _TOKEN_STATES[reasons.get(name, "fine")] for name in facts["tokens"]}


def _worst_token(facts: Facts, states: Mapping[str, tuple[str, str]]) -> str | None:
    """Return the name of the credential in the worst state; of equal ones the first to expire."""

    def badness(name: str) -> tuple[int, int]:
        return _SYMBOLS.index(states[name][0]), -(facts["tokens"][name]["expires_in"] or 0)

    return max(states, key=badness, default=None)


def _sso_state(facts: Facts, states: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Return symbol and word for the state of the SSO."""
    if facts["sso"]["failure"]:
        return "no", facts["sso"]["failure"]
    has_answered = any(word != "missing" for _, word in states.values())
    return ("yes", "answers") if has_answered else ("untried", "awaited")


def render_status_page(facts: Facts, components: Sequence[Component]) -> str:
    """Return the complete page in the language of the facts."""
    page = templates().get_template("status.html")
    return page.render(
        **_values(facts, components),
        units=unit_names(facts["language"]),
        addresses={each: f"?lang={each}" for each in LANGUAGES},
        style=STYLE,
        script=_SCRIPT,
    )


def page_update(facts: Facts, components: Sequence[Component]) -> dict[str, str]:
    """Return the parts of the page that change: `title`, `icon` as a URL, and `main` as HTML."""
    values = _values(facts, components)
    shown: Any = templates().get_template("status_main.html").make_module(values)
    return {"title": shown.title.unescape(), "icon": str(shown.icon), "main": str(shown)}


def _values(facts: Facts, components: Sequence[Component]) -> dict[str, Any]:
    """Return the values of the template `status_main.html`."""
    tokens = _token_states(facts, components)
    return {
        "facts": facts,
        "language": facts["language"],
        "question": CARE_QUESTION,
        "answers": ANSWER_WORDS,
        "care_answers": CARE_ANSWERS,
        "guidance": COMPONENT_GUIDANCE,
        "platform_causes": PLATFORM_CAUSES,
        "token_causes": TOKEN_CAUSES,
        "others": OTHERS,
        "tokens": tokens,
        "worst_token": _worst_token(facts, tokens),
        "sso_state": _sso_state(facts, tokens),
        "outbox": next((each for each in components if each.name == "outbox"), None),
        "chart": chart,
    }
