"""The page `/status`: the facts as HTML, without external resources.

The page is complete without its script, which only loads newer content from `/status/events`,
counts down in between, shows times in the browser's time zone, and reports when the gateway does
not respond. Every state is shown by a word and a symbol. Sections have ids: the script replaces
those that have changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from gateway.admin.status import glance
from gateway.admin.status.assets import SCRIPT, STYLE
from gateway.admin.status.charts import chart
from gateway.admin.status.icons import tab_icon
from gateway.admin.status.markup import (
    Words,
    format_duration,
    format_number,
    format_percentage,
    format_span,
    unit_names,
)
from gateway.admin.status.recent_requests import OTHERS
from gateway.admin.status.texts import STATUS_WORDS
from gateway.i18n import LANGUAGES, language_name
from gateway.pipeline.callers import ANONYMOUS
from gateway.templates import environment

if TYPE_CHECKING:
    from jinja2 import Environment

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
        "host": glance.host,
        "setting": _setting_text,
        # Formats a text whose values may be markup.
        "fill": lambda text, **values: escape(text).format(**values),
    }
    made.globals |= {
        "token_kind": glance.token_kind,
        "worst_token": glance.worst_token,
        "well": glance.well,
        "sso_state": glance.sso_state,
        "outbox_state": glance.outbox_state,
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
    title = f"{glance.SYMBOLS[answer]} {words[f'answer:{answer}']} · {words['title']}"
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
