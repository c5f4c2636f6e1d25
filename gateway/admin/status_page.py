"""The page `/status`: the facts as HTML for people, with nothing from outside.

The page is whole without its script, which only takes newer content from `/status/events`, counts
down in between, and says when the gateway does not answer. Every state is a word and a symbol.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from html import escape
from typing import Any, Final

from gateway.admin.status_assets import SCRIPT, STYLE
from gateway.admin.status_words import WORDS
from gateway.fhir.texts import LANGUAGES

_SYMBOLS: Final = {"yes": "✔", "degraded": "⚠", "no": "✖"}
_CIRCUITS: Final = {"closed": "yes", "half-open": "degraded", "open": "no"}
# States of queued writes.
_FOR_A_PERSON: Final = frozenset({"unclear", "failed"})
_WAITING: Final = frozenset({"waiting", "sending"})
_BAR: Final = 5
_HEIGHT: Final = 60


class _Html(str):
    """Text that is markup already."""

    __slots__ = ()


def page(facts: Mapping[str, Any]) -> str:
    """The whole page in the language of the facts."""
    language = facts["language"]
    words = WORDS[language]
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
        f"<title>{escape(_title(facts, words))}</title><style>{STYLE}</style></head>"
        f"<body><header><h1>{escape(words['title'])}</h1><nav>{links}</nav>"
        f'<p id="stale" role="alert" hidden>⚠ {escape(words["stale"])}</p></header>'
        f"<main>{_main(facts, words)}</main>"
        f'<footer><a href="/status.json?lang={language}">/status.json</a></footer>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def news(facts: Mapping[str, Any]) -> dict[str, str]:
    """What changes of the page: `title`, and `main` as HTML."""
    words = WORDS[facts["language"]]
    return {"title": _title(facts, words), "main": _main(facts, words)}


def _title(facts: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return f"{_SYMBOLS[facts['care']['answer']]} {words['title']}"


def _main(facts: Mapping[str, Any], words: Mapping[str, str]) -> str:
    return "".join(
        (
            _care(facts, words),
            _tokens(facts["tokens"], words),
            _platform(facts, words),
            _outbox(facts["outbox"], words),
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
        *_workers(facts.get("workers"), words),
    )
    return (
        f'<section class="care {care["answer"]}"><h2>{escape(words["question"])}</h2>'
        f"<strong>{_SYMBOLS[care['answer']]} {escape(words[care['answer']])}</strong>"
        f"<p>{escape(care['text'])}</p></section>"
        f"<p>{' · '.join(f'{escape(name)}: {escape(value)}' for name, value in about)}</p>"
    )


def _workers(
    workers: Mapping[str, int] | None, words: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    if workers is not None:
        yield words["workers"], words["workers:of"].format(**workers)


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
    if platform is None or sso is None:
        return ""
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


def _outbox(outbox: Mapping[str, Any] | None, words: Mapping[str, str]) -> str:
    if outbox is None:
        return ""
    entries = {state: count for state, count in outbox["entries"].items() if count}
    person = any(state in _FOR_A_PERSON for state in entries)
    told = "person" if person else "waiting" if any(_WAITING & entries.keys()) else "fine"
    symbol = _SYMBOLS["degraded" if person else "yes"]
    counts = ", ".join(f"{state} {count}" for state, count in entries.items())
    row = (
        f"{symbol} {words[f'outbox:{told}']}",
        counts or words["none"],
        _waits(outbox["oldest_seconds"], words),
    )
    return _table("outbox", ("state", "entries", "oldest"), [row], words)


def _waits(seconds: float | None, words: Mapping[str, str]) -> str:
    return words["none"] if not seconds else _span(round(seconds))


def _traffic(hour: Mapping[str, Any], words: Mapping[str, str]) -> str:
    charts = "".join(
        _chart([minute[kind] for minute in hour["minutes"]], f"{words[kind]}: {hour[kind]}", words)
        for kind in ("requests", "errors")
    )
    return f"<section><h2>{escape(words['hour'])}</h2><div class=charts>{charts}</div></section>"


def _chart(counts: list[int], label: str, words: Mapping[str, str]) -> str:
    """A bar for each minute, as high as its share of the highest."""
    most = max(counts, default=0)
    bars = "".join(
        f'<rect x="{place * _BAR}" y="{_HEIGHT - height}" width="{_BAR - 1}" height="{height}"/>'
        for place, height in enumerate(round(count / (most or 1) * _HEIGHT, 1) for count in counts)
        if height
    )
    told = f"{label} · {words['most']}: {most}"
    return (
        f"<figure><figcaption>{escape(told)}</figcaption>"
        f'<svg role="img" aria-label="{escape(told)}" preserveAspectRatio="none" '
        f'viewBox="0 0 {max(1, len(counts)) * _BAR} {_HEIGHT}">{bars}</svg>'
        f'<p class="axis"><span>{escape(words["ago"])}</span><span>{escape(words["now"])}</span>'
        "</p></figure>"
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
    names = [escape(words[column]) for column in columns]
    head = "".join(f"<th scope=col>{name}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(_cell(*pair) for pair in zip(names, row, strict=True))}</tr>" for row in rows
    )
    inside = (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(words[title])}">'
        f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
        if body
        else f"<p>{escape(words['nothing'])}</p>"
    )
    return f"<section><h2>{escape(words[title])}</h2>{inside}</section>"


def _cell(name: str, value: object) -> str:
    """With its column's name, which narrow screens show in front of it."""
    inside = value if isinstance(value, _Html) else escape(str(value))
    return f'<td data-name="{name}">{inside}</td>'


def _countdown(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    return _Html(f'<span data-seconds="{seconds}">{seconds} s</span>')


def _plain(value: object) -> str:
    return "-" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _span(seconds: int) -> str:
    hours, rest = divmod(seconds, 3600)
    return f"{hours} h {rest // 60} min {rest % 60} s"
