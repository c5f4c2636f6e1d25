"""The page `/status`: the facts as HTML for people, with nothing from outside.

The page is whole without its script, which only takes newer content from `/status/events`, counts
down in between, writes times as the reader's clock does, and says when the gateway does not answer.
Every state is a word and a sign. Sections have ids: the script exchanges those that have changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from gateway.admin.status import glance
from gateway.admin.status.assets import SCRIPT, STYLE
from gateway.admin.status.charts import chart
from gateway.admin.status.icons import icon, sign
from gateway.admin.status.markup import (
    Words,
    card,
    code,
    commands,
    inside,
    language_links,
    milliseconds,
    moment,
    nothing,
    number,
    seconds,
    share,
    span,
    table,
    unit_names,
)
from gateway.admin.status.recent_requests import OTHERS
from gateway.admin.status.texts import WORDS
from gateway.fhir.texts import LANGUAGES
from gateway.pipeline.callers import ANONYMOUS

# Callers that the settings do not name.
_UNNAMED = {ANONYMOUS.name: "anonymous", OTHERS: "others"}


def page(facts: Mapping[str, Any]) -> str:
    """The whole page in the language of the facts."""
    language = facts["language"]
    words = WORDS[language]
    current = news(facts)
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
        f'<footer><a href="status.json?lang={language}">{code("status.json")}</a></footer>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def news(facts: Mapping[str, Any]) -> dict[str, str]:
    """What changes of the page: `title`, `icon` as a URL, and `main` as HTML."""
    words, answer = WORDS[facts["language"]], facts["care"]["answer"]
    title = f"{glance.SYMBOLS[answer]} {words[f'answer:{answer}']} · {words['title']}"
    return {"title": title, "icon": icon(answer), "main": _main(facts, words)}


def _main(facts: Mapping[str, Any], words: Words) -> str:
    slowest, callers = _slowest(facts["slowest"], words), _callers(facts["callers"], words)
    return "".join(
        (
            _about(facts, words),
            _care(facts["care"], words),
            glance.glance(facts, words),
            _hour(facts["last_hour"], words),
            _errors(facts["errors"], words),
            _tokens(facts["tokens"], words),
            f'<div class="two" id="lists">{slowest}{callers}</div>',
            _settings(facts["settings"], words),
        )
    )


def _care(care: Mapping[str, Any], words: Words) -> str:
    answer = care["answer"]
    return (
        f'<section id="care" class="care {answer}">{sign(answer)}<div>'
        f"<h2>{escape(words['question'])}</h2><strong>{escape(words[f'answer:{answer}'])}</strong>"
        f"<p>{commands(care['text'])}</p></div></section>"
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
    peak = f"{words['most']}: {number(most, words)}" if most else ""
    total = f"{words[kind]}: {number(hour[kind], words)}"
    if kind == "errors" and hour["errors"]:
        total += f" ({share(hour['errors'], hour['requests'], words)})"
    if kind == "errors" and hour["refusals"]:
        total += f". {words['refusals']}: {number(hour['refusals'], words)}"
    return (
        f"<figure><figcaption><b>{escape(total)}</b><span>{escape(peak)}</span></figcaption>"
        f"{chart(hour['minutes'], kinds, f'{total}. {peak}', words)}</figure>"
    )


def _errors(errors: Iterable[Mapping[str, Any]], words: Words) -> str:
    items = "".join(
        f"<li><b>{code(error['reason'])}</b> <span>{escape(_count(error, words))}</span> "
        f"<span>{escape(words['last_seen'])} {moment(error['last_at'])}</span> "
        f"<span>{escape(words['status'])} {escape(str(error['last_status']))}</span>"
        f"<p>{escape(error['text'])}</p>"
        f"<p><b>{escape(words['remedy'])}:</b> {commands(error['remedy'])}</p></li>"
        for error in errors
    )
    inside = f'<ul class="reasons">{items}</ul>' if items else nothing(words)
    return card("reasons", inside, words)


def _count(error: Mapping[str, Any], words: Words) -> str:
    counts = {key: number(error[key], words) for key in ("last_hour", "since_start")}
    return words["count"].format(**counts)


def _tokens(tokens: Mapping[str, Mapping[str, Any]], words: Words) -> str:
    rows = [
        (
            *(code(name), glance.token_state(token, words)),
            *(seconds(token["expires_in"], words), seconds(token["next_attempt_in"], words)),
            glance.failure(token, words) if token["failure"] else words["none"],
        )
        for name, token in tokens.items()
    ]
    return table("tokens", ("credential", "state", "expires", "next", "failure"), rows, words)


def _slowest(slowest: Iterable[Mapping[str, Any]], words: Words) -> str:
    rows = [
        (
            code(f"{each['interaction']} {each['resource']}".rstrip()),
            milliseconds(each["duration_ms"], words),
            *(each["status"] or words["none"], moment(each["at"])),
        )
        for each in slowest
    ]
    return table("slowest", ("interaction", "duration", "status", "time"), rows, words)


def _callers(callers: Iterable[Mapping[str, Any]], words: Words) -> str:
    columns = ("requests", "errors", "refusals")
    rows = [
        (_caller(each["name"], words), *(number(each[column], words) for column in columns))
        for each in callers
    ]
    return table("callers", ("caller", *columns), rows, words)


def _caller(name: str, words: Words) -> str:
    return words[_UNNAMED[name]] if name in _UNNAMED else code(name)


def _settings(settings: Mapping[str, Any], words: Words) -> str:
    rows = "".join(
        f"<tr><th scope=row>{code(key)}</th><td>{code(_plain(value))}</td></tr>"
        for key, value in settings.items()
    )
    return (
        f'<section id="settings" class="card"><details><summary>{escape(words["settings"])}'
        f"</summary><table>{rows}</table></details></section>"
    )


def _about(facts: Mapping[str, Any], words: Words) -> str:
    about = (
        (words["as_of"], moment(facts["at"])),
        (words["version"], facts["version"]),
        (words["uptime"], span(facts["uptime_seconds"], words)),
    )
    told = "\N{NO-BREAK SPACE}· ".join(
        f'<span class="number">{escape(name)}: {inside(value)}</span>' for name, value in about
    )
    return f'<p id="about">{told}</p>'


def _plain(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
