"""The page `/status`: the facts as HTML for people, with nothing from outside.

The page is whole without its script, which only looks for newer facts every few seconds, counts
down in between, and says when the gateway does not answer. Every state is a word and a symbol.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from gateway.admin.status_words import WORDS
from gateway.fhir.texts import LANGUAGES

_SYMBOLS: Final = {"yes": "✔", "degraded": "⚠", "no": "✖"}
_CIRCUITS: Final = {"closed": "yes", "half-open": "degraded", "open": "no"}
_BAR: Final = 5
_HEIGHT: Final = 60

_STYLE: Final = """
:root{color-scheme:light dark;--ink:#1b1f24;--paper:#fff;--soft:#f1f3f5;--line:#8a929b}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--paper:#15181c;--soft:#22272e;--line:#8a929b}}
body{font:16px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--paper);
max-width:64rem;margin:0 auto;padding:1rem;overflow-wrap:break-word}
h1{font-size:1.1rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}
a{color:inherit}nav a{padding:.4rem}nav a[aria-current]{font-weight:bold}
.care{border:3px solid var(--ink);border-radius:.5rem;padding:.6rem 1rem;background:var(--soft)}
.care strong{font-size:2rem;display:block}.care.degraded{border-style:dashed}
.care.no{border-style:double;border-width:8px}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
th{background:var(--soft)}svg{width:100%;height:5rem;background:var(--soft)}
rect{fill:currentColor}#stale{font-weight:bold}footer{margin-top:2rem}
"""

_SCRIPT: Final = """
"use strict";
(() => {
  const stale = document.getElementById("stale");
  const countDown = () => {
    for (const each of document.querySelectorAll("[data-seconds]")) {
      const left = Math.max(0, Number(each.dataset.seconds) - 1);
      each.dataset.seconds = left;
      each.textContent = left + " s";
    }
  };
  const renew = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch(location.href, {cache: "no-store"});
      if (!answer.ok) throw new Error(answer.status);
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const open = document.querySelector("details").open;
      document.querySelector("main").replaceWith(page.querySelector("main"));
      document.querySelector("details").open = open;
      document.title = page.title;
      stale.hidden = true;
    } catch (error) {
      stale.hidden = false;
    }
  };
  setInterval(countDown, 1000);
  setInterval(renew, 5000);
})();
"""


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


HEADERS: Final = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "Vary": "Accept-Language",
}


class _Html(str):
    """Text that is markup already."""

    __slots__ = ()


def page(facts: Mapping[str, Any]) -> str:
    """The whole page in the language of the facts."""
    language = facts["language"]
    words = WORDS[language]
    symbol = _SYMBOLS[facts["care"]["answer"]]
    links = " ".join(
        f'<a href="?lang={each}" lang="{each}"{" aria-current=page" if each == language else ""}>'
        f"{each}</a>"
        for each in LANGUAGES
    )
    return (
        f'<!DOCTYPE html>\n<html lang="{language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<link rel="icon" href="data:,">'
        '<noscript><meta http-equiv="refresh" content="10"></noscript>'
        f"<title>{symbol} {escape(words['title'])}</title><style>{_STYLE}</style></head>"
        f"<body><header><h1>{escape(words['title'])}</h1><nav>{links}</nav>"
        f'<p id="stale" role="alert" hidden>⚠ {escape(words["stale"])}</p></header>'
        f"<main>{_main(facts, words)}</main>"
        f'<footer><a href="/status.json?lang={language}">/status.json</a></footer>'
        f"<script>{_SCRIPT}</script></body></html>\n"
    )


def _main(facts: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return "".join(
        (
            _care(facts, words),
            _tokens(facts["tokens"], words),
            _platform(facts, words),
            _traffic(facts["last_hour"], words),
            _errors(facts["errors"], words),
            _slowest(facts["slowest"], words),
            _callers(facts["callers"], words),
            _settings(facts["settings"], words),
        )
    )


def _care(facts: Mapping[str, Any], words: Mapping[str, str]) -> str:
    care = facts["care"]
    about = (
        (words["as_of"], facts["at"]),
        (words["version"], facts["version"]),
        (words["uptime"], _span(facts["uptime_seconds"])),
    )
    return (
        f'<section class="care {care["answer"]}"><h2>{escape(words["question"])}</h2>'
        f"<strong>{_SYMBOLS[care['answer']]} {escape(words[care['answer']])}</strong>"
        f"<p>{escape(care['text'])}</p></section>"
        f"<p>{' · '.join(f'{escape(name)}: {escape(value)}' for name, value in about)}</p>"
    )


def _tokens(tokens: Mapping[str, Mapping[str, Any]], words: Mapping[str, str]) -> str:
    rows = []
    for name, token in tokens.items():
        good = token["valid"] and not token["rejected"]
        state = "rejected" if token["rejected"] else "valid" if token["valid"] else "missing"
        symbol = _SYMBOLS["yes" if good else "no"]
        rows.append(
            (
                *(name, f"{symbol} {words[state]}", _countdown(token["expires_in"])),
                *(_countdown(token["next_attempt_in"]), token["cause"] or words["none"]),
            )
        )
    return _table("tokens", ("credential", "state", "expires", "next", "failure"), rows, words)


def _platform(facts: Mapping[str, Any], words: Mapping[str, str]) -> str:
    platform, sso = facts["platform"], facts["sso"]
    connections = ", ".join(f"{state} {count}" for state, count in platform["connections"].items())
    state = platform["circuit"]
    circuit = f"{_SYMBOLS[_CIRCUITS[state]]} {words[state]}"
    failure = f"{_SYMBOLS['no']} {sso['failure']}" if sso["failure"] else words["none"]
    return _table(
        "platform",
        ("address", "circuit", "connections", "inflight"),
        [(platform["url"], circuit, connections, facts["inflight"])],
        words,
    ) + _table("sso", ("address", "failure"), [(sso["url"], failure)], words)


def _traffic(hour: Mapping[str, Any], words: Mapping[str, str]) -> str:
    charts = "".join(
        f"<p>{escape(words[kind])}: {hour[kind]}</p>"
        + _chart([minute[kind] for minute in hour["minutes"]], f"{words[kind]}: {hour[kind]}")
        for kind in ("requests", "errors")
    )
    return f"<section><h2>{escape(words['hour'])}</h2>{charts}</section>"


def _chart(counts: list[int], label: str) -> str:
    """A bar for each minute, as high as its share of the highest."""
    most = max(1, *counts)
    bars = "".join(
        f'<rect x="{place * _BAR}" y="{_HEIGHT - height}" width="{_BAR - 1}" height="{height}"/>'
        for place, height in enumerate(round(count / most * _HEIGHT, 1) for count in counts)
        if height
    )
    return (
        f'<svg role="img" aria-label="{escape(label)}" preserveAspectRatio="none" '
        f'viewBox="0 0 {len(counts) * _BAR} {_HEIGHT}">{bars}</svg>'
    )


def _errors(errors: Iterable[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    rows = [
        (
            *(error["reason"], error["last_at"], error["last_status"]),
            *(f"{error['last_hour']} / {error['since_start']}", error["text"]),
        )
        for error in errors
    ]
    return _table("reasons", ("reason", "time", "status", "times", "todo"), rows, words)


def _slowest(slowest: Iterable[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    rows = [
        (
            *(f"{each['interaction']} {each['resource']}", f"{each['duration_ms']:g} ms"),
            *(each["status"], each["at"]),
        )
        for each in slowest
    ]
    return _table("slowest", ("interaction", "duration", "status", "time"), rows, words)


def _callers(callers: Iterable[Mapping[str, Any]], words: Mapping[str, str]) -> str:
    rows = [(each["name"], each["requests"], each["errors"]) for each in callers]
    return _table("callers", ("caller", "requests", "errors"), rows, words)


def _settings(settings: Mapping[str, Any], words: Mapping[str, str]) -> str:
    rows = "".join(
        f"<tr><th scope=row>{escape(key)}</th><td>{escape(_plain(value))}</td></tr>"
        for key, value in settings.items()
    )
    return (
        f"<details><summary>{escape(words['settings'])}</summary>"
        f'<div class="wide"><table>{rows}</table></div></details>'
    )


def _table(
    title: str, columns: Iterable[str], rows: Iterable[Iterable[object]], words: Mapping[str, str]
) -> str:
    head = "".join(f"<th scope=col>{escape(words[column])}</th>" for column in columns)
    body = "".join(f"<tr>{''.join(_cell(value) for value in row)}</tr>" for row in rows)
    inside = (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(words[title])}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        if body
        else f"<p>{escape(words['nothing'])}</p>"
    )
    return f"<section><h2>{escape(words[title])}</h2>{inside}</section>"


def _cell(value: object) -> str:
    return f"<td>{value if isinstance(value, _Html) else escape(str(value))}</td>"


def _countdown(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    return _Html(f'<span data-seconds="{seconds}">{seconds} s</span>')


def _plain(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _span(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min {rest % 60} s"
