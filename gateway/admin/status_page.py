"""The page `/status`: facts and components of the health as HTML, without external resources.

It consists of summary cards (tokens, SSO, outbox, …), charts of the last hour, minute by minute,
and tables. The facts come from `gateway.admin.status_facts`, the components from
`gateway.health.health`, which judges; this module chooses words and symbols.

With many credentials and callers, each table has the worst rows and the number of the others, and a
field to search them by name.

The page is complete without its script, which only loads newer content from `/status/events`,
counts down in between, shows times in the browser's time zone, and reports when the gateway does
not respond. Every state is shown by a word and a symbol. Sections have ids: the script replaces
those that have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import groupby, islice
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from gateway.admin.page_rendering import STYLE, headers, page_script, templates
from gateway.guidance import COMPONENT_GUIDANCE, PLATFORM_CAUSES
from gateway.health.health import ANSWER_WORDS, CARE_ANSWERS, CARE_QUESTION, Component
from gateway.health.recent_requests import MINUTES, OTHERS
from gateway.i18n import LANGUAGES, unit_names
from gateway.oauth.token_failures import TOKEN_CAUSES

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


def _badness(facts: Facts, states: Mapping[str, tuple[str, str]], name: str) -> tuple[int, int]:
    """Return the key by which the worst token comes last; of equal ones the first to expire."""
    return _SYMBOLS.index(states[name][0]), -(facts["tokens"][name]["expires_in"] or 0)


def _sso_state(facts: Facts, states: Mapping[str, tuple[str, str]]) -> tuple[str, str]:
    """Return symbol and word for the state of the SSO."""
    if facts["sso"]["failure"]:
        return "no", facts["sso"]["failure"]
    has_answered = any(word != "missing" for _, word in states.values())
    return ("yes", "answers") if has_answered else ("untried", "awaited")


# Rows of a table, and settings of a section: with many callers and credentials, they have many.
_MAX_ROWS: Final = 20
_MAX_SETTINGS: Final = 100
# Parameters of the page's address: parts of names that are searched for.
_SEARCHED: Final = ("credential", "caller")
_NO_QUERY: Final[Mapping[str, str]] = MappingProxyType({})


def page_facts(
    facts: Facts, components: Sequence[Component], query: Mapping[str, str]
) -> dict[str, Any]:
    """Return the facts that the page shows.

    Of each table they are the worst rows, of those whose name has what `query` searches for.
    `omitted` is the number of further rows, by table. `states` has symbol and word of the tokens
    that are shown, `worst_token` the name of the worst of all.
    """
    states = _token_states(facts, components)
    search = {kind: query[kind].strip() for kind in _SEARCHED if query.get(kind, "").strip()}
    tables = _found_rows(facts, states, search)
    worst = max(states, key=lambda name: _badness(facts, states, name), default=None)
    names = {*tables["tokens"][:_MAX_ROWS], worst} - {None}
    settings = dict(_first_settings(facts["settings"]))
    failed = (each for each in facts["tokens"].values() if each["failure"])
    return {
        **facts,
        **{name: rows[:_MAX_ROWS] for name, rows in tables.items()},
        "token_rows": tables["tokens"][:_MAX_ROWS],
        "tokens": {name: facts["tokens"][name] for name in names},
        "states": {name: states[name] for name in names},
        "settings": settings,
        "search": search,
        "is_searchable": bool(search) or any(len(rows) > _MAX_ROWS for rows in tables.values()),
        "omitted": {
            **{name: len(rows) - _MAX_ROWS for name, rows in tables.items()},
            "settings": len(facts["settings"]) - len(settings),
        },
        "worst_token": worst,
        "well": sum(sign == "yes" for sign, _ in states.values()),
        "credentials": len(states),
        "sso_state": _sso_state(facts, states),
        "failed_token": next(
            (each for each in failed if each["failure"] == facts["sso"]["failure"]), None
        ),
        "outbox_state": next((each for each in components if each.name == "outbox"), None),
    }


def _found_rows(
    facts: Facts, states: Mapping[str, tuple[str, str]], search: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Return the rows of each table that a search finds, the worst first."""
    credential, caller = (search.get(kind, "").lower() for kind in _SEARCHED)
    tokens = [name for name in states if credential in name.lower()]
    callers = [each for each in facts["callers"] if caller in each["name"].lower()]
    fields = facts["fields_not_forwarded"]
    return {
        "tokens": sorted(tokens, key=lambda name: -_badness(facts, states, name)[0]),
        "callers": sorted(
            callers, key=lambda each: (-each["errors"], -each["refusals"], -each["requests"])
        ),
        "fields_not_forwarded": [each for each in fields if caller in each["caller"].lower()],
    }


def _first_settings(settings: Facts) -> Iterator[tuple[str, Any]]:
    """Yield the first settings of each section, as `callers`."""

    def section_of(item: tuple[str, Any]) -> str:
        return item[0].partition(".")[0].partition("[")[0]

    for _, section in groupby(settings.items(), section_of):
        yield from islice(section, _MAX_SETTINGS)


def render_status_page(
    facts: Facts, components: Sequence[Component], query: Mapping[str, str] = _NO_QUERY
) -> str:
    """Return the complete page in the language of the facts."""
    shown = page_facts(facts, components, query)
    page = templates().get_template("status.html")
    return page.render(
        **_values(shown),
        units=unit_names(facts["language"]),
        addresses={each: f"?{urlencode({'lang': each, **shown['search']})}" for each in LANGUAGES},
        style=STYLE,
        script=_SCRIPT,
    )


def page_update(shown: Facts) -> dict[str, str]:
    """Return the parts of the page that change: `title`, `icon` as a URL, and `main` as HTML.

    `shown` are `page_facts`.
    """
    made: Any = templates().get_template("status_main.html").make_module(_values(shown))
    return {"title": made.title.unescape(), "icon": str(made.icon), "main": str(made)}


def _values(shown: Facts) -> dict[str, Any]:
    """Return the values of the template `status_main.html`."""
    return {
        "facts": shown,
        "language": shown["language"],
        "question": CARE_QUESTION,
        "answers": ANSWER_WORDS,
        "care_answers": CARE_ANSWERS,
        "guidance": COMPONENT_GUIDANCE,
        "platform_causes": PLATFORM_CAUSES,
        "token_causes": TOKEN_CAUSES,
        "others": OTHERS,
        "outbox": shown["outbox_state"],
        "chart": chart,
    }
