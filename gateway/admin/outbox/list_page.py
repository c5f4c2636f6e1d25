"""The page `/outbox`: the overall state, why entries are not delivered, and the entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any, Final

from gateway.admin.outbox.causes import cause_remedy, explain_cause
from gateway.admin.outbox.frame import PageContext, render_frame
from gateway.admin.status.icons import status_icon
from gateway.admin.status.markup import (
    Html,
    code_element,
    format_number,
    mark_commands,
    table,
    time_element,
)
from gateway.pipeline.callers import ANONYMOUS

EntryListFacts = Mapping[str, Any]
# States that need an operator's decision come first.
STATES: Final = ("failed", "unclear", "waiting", "sending")
_NOTICES: Final = frozenset(("retried", "dropped"))


def render_list_page(
    view: PageContext, facts: EntryListFacts, asked: EntryListFacts, query: Mapping[str, str]
) -> str:
    """Return the page for the answer of an `OutboxAdminApi`.

    `facts`: the answer. `asked`: the question. `query`: the query of the page's own address.
    """
    verdict = _outbox_status(facts["groups"])
    main = "".join(
        (
            f'<p id="about">{escape(view.words["as_of"])}: {time_element(facts["at"])}</p>',
            _action_notice(view, query),
            _status_card(view, verdict),
            _cards(view, facts["groups"]),
            _cause_section(view, facts["groups"]),
            _entries(view, facts, asked),
        )
    )
    answer = "degraded" if verdict == "person" else "yes"
    return render_frame(view, main, "outbox", query, answer=answer)


def caller_label(name: str, view: PageContext) -> str:
    """Return the name of a caller as HTML; all anonymous callers share one text."""
    return view.words["anonymous"] if name == ANONYMOUS.name else code_element(name)


def _outbox_status(groups: Sequence[EntryListFacts]) -> str:
    states = {each["state"] for each in groups}
    if states & {"failed", "unclear"}:
        return "person"
    return "waiting" if states else "fine"


def _action_notice(view: PageContext, query: Mapping[str, str]) -> str:
    said, count = query.get("said"), query.get("count", "")
    if said not in _NOTICES:
        return ""
    shown = format_number(int(count), view.words) if count.isdecimal() and len(count) < 9 else "?"
    told = view.words[f"said:{said}"].format(count=shown)
    return f'<p class="news" role="status">{escape(told)}</p>'


def _status_card(view: PageContext, verdict: str) -> str:
    words = view.words
    answer = "degraded" if verdict == "person" else "yes"
    advice = words["advice:person"] if verdict == "person" else words[f"outbox:{verdict}:todo"]
    return (
        f'<section id="care" class="care {answer}">{status_icon(answer)}<div>'
        f"<strong>{escape(words[f'verdict:{verdict}'])}</strong><p>{mark_commands(advice)}</p></div>"
        "</section>"
    )


def _cards(view: PageContext, groups: Sequence[EntryListFacts]) -> str:
    cards = []
    for state in STATES:
        mine = [each for each in groups if each["state"] == state]
        count = format_number(sum(each["entries"] for each in mine), view.words)
        oldest = _since(view, min(each["oldest"] for each in mine)) if mine else ""
        cards.append(
            f'<section class="card"><h2>{escape(view.words[f"card:{state}"])}</h2>'
            f"<b>{count}</b><p>{oldest}</p></section>"
        )
    return f'<div id="glance" class="glance">{"".join(cards)}</div>'


def _since(view: PageContext, at: str) -> str:
    return Html(escape(view.words["since"]).replace("{at}", time_element(at)))


def _cause_section(view: PageContext, groups: Sequence[EntryListFacts]) -> str:
    items = "".join(_cause_item(view, *each) for each in _by_cause(groups))
    if not items:
        return ""
    return (
        f'<section id="reasons" class="card"><h2>{escape(view.words["why"])}</h2>'
        f'<ul class="reasons">{items}</ul></section>'
    )


def _by_cause(groups: Sequence[EntryListFacts]) -> Iterator[tuple[str, str, list[EntryListFacts]]]:
    """Yield state, cause and the groups of each caller, in the order of `STATES`.

    Within a state the cause with most entries comes first. Entries being sent are left out.
    """
    found: dict[tuple[str, str], list[EntryListFacts]] = {}
    for each in groups:
        found.setdefault((each["state"], each["cause"]), []).append(each)

    def weight(item: tuple[tuple[str, str], list[EntryListFacts]]) -> tuple[int, int]:
        return STATES.index(item[0][0]), -_sum(item[1])

    for (state, cause), mine in sorted(found.items(), key=weight):
        if state != "sending":
            yield state, cause, sorted(mine, key=lambda each: -each["entries"])


def _sum(groups: Iterable[EntryListFacts]) -> int:
    total: int = sum(each["entries"] for each in groups)
    return total


def _cause_item(view: PageContext, state: str, cause: str, mine: Sequence[EntryListFacts]) -> str:
    words, count = view.words, _sum(mine)
    callers = ", ".join(
        f'<a href="{view.link("outbox", state=state, cause=cause, caller=each["caller"])}">'
        f"{caller_label(each['caller'], view)} {format_number(each['entries'], words)}</a>"
        for each in mine
    )
    all_of_them = words["retry-all"].format(count=format_number(count, words))
    button = f"<button>{escape(all_of_them if count > 1 else words['retry'])}</button>"
    return (
        f"<li><b>{escape(words[f'card:{state}'])}: {format_number(count, words)}</b> "
        f"<span>{_since(view, min(each['oldest'] for each in mine))}</span>"
        f"<p>{mark_commands(explain_cause(cause, view.language))} <span>{callers}</span></p>"
        f"<p><b>{escape(words['remedy'])}:</b> "
        f"{mark_commands(cause_remedy(state, cause, view.language))}</p>"
        f"{view.form('retry', button, cause=cause) if state == 'failed' else ''}</li>"
    )


def _entries(view: PageContext, facts: EntryListFacts, asked: EntryListFacts) -> str:
    words = view.words
    rows = [
        (
            time_element(each["queued_at"]),
            words[f"card:{each['state']}"],
            caller_label(each["caller"], view),
            Html(mark_commands(explain_cause(each["cause"], view.language))),
            str(each["attempts"]),
            Html(f'<a href="{_address(view, each)}">{escape(words["show"])}</a>'),
        )
        for each in facts["entries"]
    ]
    columns = ("queued", "state", "caller", "cause", "attempts", "id")
    narrowed = {
        **({"state": asked["states"][0]} if asked["states"] else {}),
        **{key: asked[key] for key in ("cause", "caller") if asked[key] is not None},
    }
    return (
        f"{_tabs(view, narrowed)}"
        f"{table('entries', columns, rows, {**words, 'nothing': words['none-here']})}"
        f"{_paging_links(view, facts['next'], asked['after'], narrowed)}"
    )


def _address(view: PageContext, entry: EntryListFacts) -> str:
    return view.link(f"outbox/{entry['id']}")


def _tabs(view: PageContext, narrowed: Mapping[str, str]) -> str:
    words, now = view.words, narrowed.get("state")
    choices: list[tuple[str, dict[str, str], bool]] = [(words["all"], {}, now is None)]
    choices += [(words[f"card:{each}"], {"state": each}, now == each) for each in STATES]
    links = "".join(
        f'<a href="{view.link("outbox", **query)}#entries"'
        f"{' aria-current=page' if current else ''}>{escape(name)}</a>"
        for name, query, current in choices
    )
    only = [caller_label(narrowed["caller"], view)] if "caller" in narrowed else []
    if "cause" in narrowed:
        only.append(mark_commands(explain_cause(narrowed["cause"], view.language)))
    told = escape(words["only"]).replace("{what}", ", ".join(only))
    return f'<div class="tabs">{links}</div>' + (f"<p>{told}</p>" if only else "")


def _paging_links(
    view: PageContext, after: int | None, before: int, narrowed: Mapping[str, str]
) -> str:
    links = []
    if before:
        links.append((view.link("outbox", **narrowed), view.words["first"]))
    if after is not None:
        links.append((view.link("outbox", **narrowed, after=str(after)), view.words["next"]))
    shown = "".join(f'<a href="{address}#entries">{escape(text)}</a>' for address, text in links)
    return f'<p class="more">{shown}</p>' if shown else ""
