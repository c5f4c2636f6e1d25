"""The page `/outbox`: the overall state, why entries are not delivered, and the entries."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from gateway.admin.outbox.causes import cause_remedy, explain_cause
from gateway.admin.outbox.frame import PageContext, render_page
from gateway.admin.status.markup import format_number

EntryListFacts = Mapping[str, Any]
# The order of display: states that require a decision of an operator come first.
STATES: Final = ("failed", "unclear", "waiting", "sending")
_NOTICES: Final = frozenset(("retried", "dropped"))


def render_list_page(
    view: PageContext, facts: EntryListFacts, asked: EntryListFacts, query: Mapping[str, str]
) -> str:
    """Return the page for `OutboxAdminApi.entries`.

    `facts`: its result. `asked`: its arguments. `query`: the query of the page's own address.
    """
    verdict = _outbox_status(facts["groups"])
    narrowed = {
        **({"state": asked["states"][0]} if asked["states"] else {}),
        **{key: asked[key] for key in ("cause", "caller") if asked[key] is not None},
    }
    return render_page(
        *(view, "outbox_list.html", "outbox", query),
        answer="degraded" if verdict == "person" else "yes",
        facts=facts,
        verdict=verdict,
        notice=_action_notice(view, query),
        cards=[_card(state, facts["groups"]) for state in STATES],
        causes=[_cause(view, *each) for each in _by_cause(facts["groups"])],
        states=STATES,
        narrowed=narrowed,
        narrowed_why=explain_cause(narrowed.get("cause", ""), view.language),
        entries=[
            {**each, "why": explain_cause(each["cause"], view.language)}
            for each in facts["entries"]
        ],
        has_before=bool(asked["after"]),
        after=facts["next"],
    )


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
    return view.words[f"said:{said}"].format(count=shown)


def _card(state: str, groups: Sequence[EntryListFacts]) -> dict[str, Any]:
    mine = [each for each in groups if each["state"] == state]
    oldest = min(each["oldest"] for each in mine) if mine else None
    return {"state": state, "entries": _sum(mine), "oldest": oldest}


def _cause(
    view: PageContext, state: str, cause: str, mine: Sequence[EntryListFacts]
) -> dict[str, Any]:
    return {
        "state": state,
        "cause": cause,
        "why": explain_cause(cause, view.language),
        "remedy": cause_remedy(state, cause, view.language),
        "entries": _sum(mine),
        "oldest": min(each["oldest"] for each in mine),
        "groups": mine,
    }


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
