"""The page `/status`: the facts as HTML, without external resources.

The page is complete without its script, which only loads newer content from `/status/events`,
counts down in between, shows times in the browser's time zone, and reports when the gateway does
not respond. Every state is shown by a word and a symbol. Sections have ids: the script replaces
those that have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gateway.admin.status import glance
from gateway.admin.status.assets import SCRIPT, STYLE
from gateway.admin.status.charts import chart
from gateway.admin.status.icons import status_icon, tab_icon
from gateway.admin.status.markup import (
    Words,
    card,
    code_element,
    countdown,
    empty_placeholder,
    format_duration,
    format_number,
    format_percentage,
    format_span,
    language_links,
    mark_commands,
    table,
    time_element,
    to_html,
    unit_names,
)
from gateway.admin.status.recent_requests import OTHERS
from gateway.admin.status.texts import STATUS_WORDS
from gateway.i18n import LANGUAGES
from gateway.pipeline.callers import ANONYMOUS

# Texts for callers that the settings do not name.
_UNNAMED = {ANONYMOUS.name: "anonymous", OTHERS: "others"}


def render_status_page(facts: Mapping[str, Any]) -> str:
    """Return the complete page in the language of the facts."""
    language = facts["language"]
    words = STATUS_WORDS[language]
    current = page_update(facts)
    return (
        f'<!DOCTYPE html>\n<html lang="{language}" data-units="{unit_names(words)}"><head>'
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="{current["icon"]}">'
        '<noscript><meta http-equiv="refresh" content="10"></noscript>'
        f"<title>{escape(current['title'])}</title><style>{STYLE}</style></head>"
        f"<body><header><h1>{escape(words['title'])}</h1>"
        f"<code class=badge>{escape(str(facts['settings'].get('environment', '')))}</code>"
        f"{language_links(language, {each: f'?lang={each}' for each in LANGUAGES}, words)}"
        f'<p id="stale" role="alert" hidden>⚠ {escape(words["stale"])}</p></header>'
        f'<p id="said" role="status"></p><main>{current["main"]}</main>'
        f'<footer><a href="status.json?lang={language}">{code_element("status.json")}</a></footer>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def page_update(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the parts of the page that change: `title`, `icon` as a URL, and `main` as HTML."""
    words, answer = STATUS_WORDS[facts["language"]], facts["care"]["answer"]
    title = f"{glance.SYMBOLS[answer]} {words[f'answer:{answer}']} · {words['title']}"
    return {"title": title, "icon": tab_icon(answer), "main": _main(facts, words)}


def _main(facts: Mapping[str, Any], words: Words) -> str:
    slowest, callers = _slowest(facts["slowest"], words), _callers(facts["callers"], words)
    return "".join(
        (
            _about(facts, words),
            _service_status_card(facts["care"], words),
            glance.summary_cards(facts, words),
            _hour(facts["last_hour"], words),
            _errors(facts["errors"], words),
            _tokens(facts["tokens"], words),
            f'<div class="two" id="lists">{slowest}{callers}</div>',
            _settings(facts["settings"], words),
        )
    )


def _service_status_card(care: Mapping[str, Any], words: Words) -> str:
    answer = care["answer"]
    return (
        f'<section id="care" class="care {answer}">{status_icon(answer)}<div>'
        f"<h2>{escape(words['question'])}</h2><strong>{escape(words[f'answer:{answer}'])}</strong>"
        f"<p>{mark_commands(care['text'])}</p></div></section>"
    )


def _hour(hour: Mapping[str, Any], words: Words) -> str:
    if not hour["minutes"]:
        return ""
    charts = "".join(
        f'<div class="card">{_figure(hour, kinds, words)}</div>'
        for kinds in (("requests",), ("errors", "refusals"))
    )
    return (
        f'<section id="hour"><h2>{escape(words["hour"])}</h2><div class="two">{charts}</div>'
        "</section>"
    )


def _figure(hour: Mapping[str, Any], kinds: Sequence[str], words: Words) -> str:
    kind = kinds[0]
    most = max(sum(minute[each] for each in kinds) for minute in hour["minutes"])
    peak = f"{words['most']}: {format_number(most, words)}" if most else ""
    total = f"{words[kind]}: {format_number(hour[kind], words)}"
    if kind == "errors" and hour["errors"]:
        total += f" ({format_percentage(hour['errors'], hour['requests'], words)})"
    if kind == "errors" and hour["refusals"]:
        total += f". {words['refusals']}: {format_number(hour['refusals'], words)}"
    return (
        f"<figure><figcaption><b>{escape(total)}</b><span>{escape(peak)}</span></figcaption>"
        f"{chart(hour['minutes'], kinds, f'{total}. {peak}', words)}</figure>"
    )


def _errors(errors: Iterable[Mapping[str, Any]], words: Words) -> str:
    items = "".join(
        f"<li><b>{code_element(error['reason'])}</b> <span>{escape(_count(error, words))}</span> "
        f"<span>{escape(words['last_seen'])} {time_element(error['last_at'])}</span> "
        f"<span>{escape(words['status'])} {escape(str(error['last_status']))}</span>"
        f"<p>{escape(error['text'])}</p>"
        f"<p><b>{escape(words['remedy'])}:</b> {mark_commands(error['remedy'])}</p></li>"
        for error in errors
    )
    inside = f'<ul class="reasons">{items}</ul>' if items else empty_placeholder(words)
    return card("reasons", inside, words)


def _count(error: Mapping[str, Any], words: Words) -> str:
    counts = {key: format_number(error[key], words) for key in ("last_hour", "since_start")}
    return words["count"].format(**counts)


def _tokens(tokens: Mapping[str, Mapping[str, Any]], words: Words) -> str:
    rows = [
        (
            *(code_element(name), glance.token_state(token, words)),
            *(countdown(token["expires_in"], words), countdown(token["next_attempt_in"], words)),
            glance.token_failure(token, words) if token["failure"] else words["none"],
        )
        for name, token in tokens.items()
    ]
    return table("tokens", ("credential", "state", "expires", "next", "failure"), rows, words)


def _slowest(slowest: Iterable[Mapping[str, Any]], words: Words) -> str:
    rows = [
        (
            code_element(f"{each['interaction']} {each['resource']}".rstrip()),
            format_duration(each["duration_ms"], words),
            *(each["status"] or words["none"], time_element(each["at"])),
        )
        for each in slowest
    ]
    return table("slowest", ("interaction", "duration", "status", "time"), rows, words)


def _callers(callers: Iterable[Mapping[str, Any]], words: Words) -> str:
    columns = ("requests", "errors", "refusals")
    rows = [
        (_caller(each["name"], words), *(format_number(each[column], words) for column in columns))
        for each in callers
    ]
    return table("callers", ("caller", *columns), rows, words)


def _caller(name: str, words: Words) -> str:
    return words[_UNNAMED[name]] if name in _UNNAMED else code_element(name)


def _settings(settings: Mapping[str, Any], words: Words) -> str:
    rows = "".join(
        f"<tr><th scope=row>{code_element(key)}</th>"
        f"<td>{code_element(_setting_text(value))}</td></tr>"
        for key, value in settings.items()
    )
    return (
        f'<section id="settings" class="card"><details><summary>{escape(words["settings"])}'
        f"</summary><table>{rows}</table></details></section>"
    )


def _about(facts: Mapping[str, Any], words: Words) -> str:
    about = (
        (words["as_of"], time_element(facts["at"])),
        (words["version"], facts["version"]),
        (words["uptime"], format_span(facts["uptime_seconds"], words)),
    )
    told = "\N{NO-BREAK SPACE}· ".join(
        f'<span class="number">{escape(name)}: {to_html(value)}</span>' for name, value in about
    )
    return f'<p id="about">{told}</p>'


def _setting_text(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
