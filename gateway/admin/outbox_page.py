"""The outbox pages: the page `/outbox`, the page of one entry, and refusals.

`/outbox` shows the overall state, why entries are not delivered, and the entries. The page of one
entry shows its facts and the actions that an operator can choose. The texts are in the templates;
this module decides which of them apply. `gateway.admin.outbox_routes` reads the entries and checks
the operators' rights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import urlencode

from gateway.admin.page_rendering import STYLE, headers, page_script, templates
from gateway.guidance import COMPONENT_GUIDANCE, REASON_GUIDANCE
from gateway.health.health import CARE_ANSWERS, judge_outbox
from gateway.i18n import LANGUAGES
from gateway.templates import file_text

_STYLE: Final = STYLE + file_text("admin/static", "outbox.css")
_SCRIPT: Final = page_script("outbox.js")
# The Origin of the page's own forms would be "null" without a referrer (Fetch standard).
HEADERS: Final = {
    **headers(_STYLE, _SCRIPT),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OutboxPageError(Exception):
    """The response is a page that only has the reason.

    `text_key` is the key of the reason's text in the template `outbox_refused.html`.
    """

    def __init__(
        self, status: HTTPStatus, word: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(word)
        self.status = status
        self.text_key = word
        self.headers = headers or {}


@dataclass(slots=True)
class PageContext:
    """The language, the operator and the rights for which a page is rendered.

    `root_path`: the relative path from the page to the listener's root. `has_operators`: the
    settings name operators. `reveal`: operators may see entries in full. `operator`: the signed-in
    operator, None if there is none. `token`: the form token of that operator, "" if there is none.
    """

    language: str
    root_path: str
    has_operators: bool
    reveal: bool
    operator: str | None = None
    token: str = ""

    def link(self, to: str, /, **query: str) -> str:
        """Return the address of a page with query and language. Templates escape it."""
        return f"{self.root_path}{to}?{urlencode({**query, 'lang': self.language})}"


OutboxFacts = Mapping[str, Any]
# The order of display: states that require a decision of an operator come first.
STATES: Final = ("failed", "unclear", "waiting", "sending")
# Parts of the query that the links to other languages do not have.
_ONCE: Final = frozenset(("said", "count", "sign-in"))


def _render_page(
    view: PageContext,
    template: str,
    here: str = "outbox",
    query: Mapping[str, str] = MappingProxyType({}),
    **values: Any,
) -> str:
    """Return a complete page made from a template.

    `here` is the page's path below `root_path`, `query` its query; the links to other languages
    have both.
    """
    kept = {key: value for key, value in query.items() if key not in _ONCE}
    addresses = {
        each: f"{view.root_path}{here}?{urlencode({**kept, 'lang': each})}" for each in LANGUAGES
    }
    page = templates().get_template(template)
    return page.render(
        view=view,
        language=view.language,
        query=query,
        addresses=addresses,
        style=_STYLE,
        script=_SCRIPT,
        cause_kind=cause_kind,
        remedy_kind=remedy_kind,
        guidance=COMPONENT_GUIDANCE,
        **values,
    )


def render_refusal(view: PageContext, word: str) -> str:
    """Return a page that only has the reason of an `OutboxPageError`."""
    return _render_page(view, "outbox_refused.html", refusal=word)


def render_list_page(
    view: PageContext, facts: OutboxFacts, asked: OutboxFacts, query: Mapping[str, str]
) -> str:
    """Return the page for `OutboxAdminApi.entries`.

    `facts`: its result. `asked`: its arguments. `query`: the query of the page's own address.
    """
    groups = facts["groups"]
    outbox = judge_outbox({"entries": {each["state"]: each["entries"] for each in groups}})
    narrowed = {key: asked[key] for key in ("state", "cause", "caller") if asked[key] is not None}
    return _render_page(
        view,
        "outbox_list.html",
        query=query,
        facts=facts,
        answer=CARE_ANSWERS[outbox.state],
        need=outbox.reason,
        causes=[*_by_cause(groups)],
        listed_states=STATES,
        narrowed=narrowed,
        after=asked["after"],
    )


def _by_cause(groups: Sequence[OutboxFacts]) -> Iterator[tuple[str, str, list[OutboxFacts]]]:
    """Yield state, cause and the groups of each caller, in the order of `STATES`.

    Within a state the cause with most entries comes first. Entries being sent are left out.
    """
    found: dict[tuple[str, str], list[OutboxFacts]] = {}
    for each in groups:
        found.setdefault((each["state"], each["cause"]), []).append(each)

    def weight(item: tuple[tuple[str, str], list[OutboxFacts]]) -> tuple[int, int]:
        return STATES.index(item[0][0]), -sum(each["entries"] for each in item[1])

    for (state, cause), mine in sorted(found.items(), key=weight):
        if state != "sending":
            yield state, cause, sorted(mine, key=lambda each: -each["entries"])


def render_entry_page(view: PageContext, entry: OutboxFacts) -> str:
    """Return the page of an entry; it has patient data only if the entry is revealed."""
    return _render_page(view, "outbox_entry.html", f"outbox/{entry['id']}", entry=entry)


_OF_STATUS: Final = {
    **dict.fromkeys((400, 413, 415, 422), "content"),
    **dict.fromkeys((401, 403), "rights"),
    **dict.fromkeys((404, 410), "gone"),
    **dict.fromkeys((409, 412), "conflict"),
}
_OF_CAUSE: Final = {"": "turn", "expired": "expired", "collision": "collision"}
# Kinds of causes that have a remedy of their own once an entry has failed.
_FAILURES: Final = frozenset(("expired", *_OF_STATUS.values()))


def cause_kind(cause: str) -> tuple[str, str]:
    """Return the kind of a cause, and the status by which the platform refused it, or "".

    It is a kind of the template `outbox_causes.html`, or a reason of `gateway.errors`.
    """
    word, _, status = cause.partition(" ")
    if word != "platform-status" or len(status) != 3 or not status.isdecimal():
        return cause if cause in REASON_GUIDANCE else _OF_CAUSE.get(cause, "other"), ""
    return _OF_STATUS.get(int(status), "refused" if int(status) < 500 else "trouble"), status


def remedy_kind(state: str, cause: str) -> str:
    """Return the kind of what an operator should do about an entry in `state`.

    It is a kind of the template `outbox_causes.html`, or a reason of `gateway.errors`, whose remedy
    applies to an entry that waits.
    """
    if state == "failed":
        kind, _ = cause_kind(cause)
        return kind if kind in _FAILURES else "failed"
    if state == "waiting" and cause in REASON_GUIDANCE:
        # An open circuit is a consequence: the remedy is that of an unreachable platform.
        return "upstream-unreachable" if cause == "circuit-open" else cause
    return "unclear" if state == "unclear" else "waiting"
