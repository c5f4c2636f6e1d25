"""The outbox pages as HTML: the page `/outbox`, the page of one entry, and their common frame.

`/outbox` shows the overall state, why entries are not delivered, and the entries. The page of one
entry shows its facts and the actions that an operator can choose. The frame consists of head,
languages, signed-in operator, style and script. `gateway.admin.outbox_routes` reads the entries and
checks the operators' rights; this module only renders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from gateway.admin.page_rendering import STYLE, TIMES, format_number, headers, tab_icon
from gateway.admin.status_page import templates
from gateway.errors import REMEDIES
from gateway.health.advice import STATUS_MESSAGES
from gateway.i18n import LANGUAGES, Message, in_all_languages
from gateway.pipeline.callers import ANONYMOUS
from gateway.templates import file_text

if TYPE_CHECKING:
    from gateway.i18n import Words

_ENTRY_CAUSE_MESSAGES: Final = {
    "why:turn": Message(
        "It waits for its turn: for the line, or for earlier writes of the same patient."
    ),
    "why:line": Message("The platform could not be reached."),
    "why:broken": Message("The connection broke, or there was no answer in time."),
    "why:busy": Message("The platform asked to wait."),
    "why:token": Message("There was no token that the platform takes."),
    "why:strange": Message("Something else than the platform answered."),
    "why:expired": Message("It could not be delivered within `outbox.max_age`."),
    "why:internal": Message("The gateway could not process it."),
    "why:content": Message("The platform refused the content ({status})."),
    "why:rights": Message("The platform does not allow it ({status})."),
    "why:gone": Message("What it refers to is not there ({status})."),
    "why:conflict": Message("The platform has another version of it ({status})."),
    "why:refused": Message("The platform refused it ({status})."),
    "why:trouble": Message("The platform failed while it had this write ({status})."),
    "why:other": Message("It was not delivered: {cause}."),
    "todo:waiting": Message("Nothing. It is delivered by itself, in its order."),
    "todo:unclear": Message(
        "Look at the platform whether the write is there. If it is, drop it here; if not, "
        "send it once more."
    ),
    "todo:expired": Message(
        "Mend the line, then send it once more. If the caller has entered it anew, drop it."
    ),
    "todo:content": Message(
        "Have it corrected and entered anew in the system that sent it, and drop it here: "
        "sent once more it would be refused again."
    ),
    "todo:rights": Message(
        "Ask the platform's support for the permission, then send it once more."
    ),
    "todo:gone": Message(
        "See whether an earlier write is missing: deliver that first, then send this once "
        "more. Else have it entered anew, and drop it here."
    ),
    "todo:conflict": Message(
        "Somebody has changed it meanwhile. Have the present version looked at and the "
        "change entered anew, and drop it here."
    ),
    "todo:failed": Message(
        "Mend the cause, then send it once more; or have it entered anew, and drop it here."
    ),
}

ENTRY_CAUSES: Final = in_all_languages(_ENTRY_CAUSE_MESSAGES)

_OF_STATUS: Final = {
    **dict.fromkeys((400, 413, 415, 422), "content"),
    **dict.fromkeys((401, 403), "rights"),
    **dict.fromkeys((404, 410), "gone"),
    **dict.fromkeys((409, 412), "conflict"),
}
_OF_REASON: Final = {
    "": "turn",
    **dict.fromkeys(("upstream-unreachable", "circuit-open", "upstream-tls"), "line"),
    **dict.fromkeys(("upstream-failed", "upstream-timeout"), "broken"),
    **dict.fromkeys(("upstream-busy", "rate-limited"), "busy"),
    **dict.fromkeys(("sso-unavailable", "token-refused", "token-rejected"), "token"),
    **dict.fromkeys(("upstream-non-fhir", "upstream-redirect"), "strange"),
    "expired": "expired",
    "internal": "internal",
}


def explain_cause(cause: str, language: str) -> str:
    """Return the explanation of an entry's `cause`."""
    kind, status = _cause_kind(cause)
    return ENTRY_CAUSES[language][f"why:{kind}"].format(status=status, cause=cause)


def cause_remedy(state: str, cause: str, language: str) -> str:
    """Return what an operator should do about an entry in `state`."""
    if state == "waiting" and cause in REMEDIES[language]:
        # An open circuit is a consequence: the remedy is that of an unreachable platform.
        return REMEDIES[language]["upstream-unreachable" if cause == "circuit-open" else cause]
    words, kind = ENTRY_CAUSES[language], _cause_kind(cause)[0]
    if state == "failed":
        return words.get(f"todo:{kind}", words["todo:failed"])
    return words["todo:unclear" if state == "unclear" else "todo:waiting"]


def _cause_kind(cause: str) -> tuple[str, str]:
    """Return the kind of a cause, and the status by which the platform refused it, or ""."""
    word, _, status = cause.partition(" ")
    if word != "platform-status" or len(status) != 3 or not status.isdecimal():
        return _OF_REASON.get(cause, "other"), ""
    return _OF_STATUS.get(int(status), "refused" if int(status) < 500 else "trouble"), status


_PAGE_MESSAGES: Final = {
    "verdict:away": Message("The outbox cannot be reached"),
    "verdict:person": Message("Entries wait for your decision"),
    "verdict:waiting": Message("Writes wait for the line"),
    "verdict:fine": Message("Nothing waits"),
    "advice:person": Message(
        "They hold up what comes after them for the same patient. Read below why, and what to do."
    ),
    "card:waiting": Message("Waiting"),
    "card:failed": Message("Failed"),
    "card:unclear": Message("Unclear"),
    "card:sending": Message("Being sent"),
    "since": Message("since {at}"),
    "why": Message("Why, and what to do"),
    "entries": Message("Entries"),
    "all": Message("All"),
    "id": Message("Entry"),
    "queued": Message("Since"),
    "cause": Message("Cause"),
    "attempts": Message("Attempts"),
    "only": Message("Only these: {what}"),
    "show": Message("Show"),
    "back": Message("Back to the list"),
    "first": Message("First page"),
    "next": Message("Next page"),
    "none-here": Message("No such entries."),
    "to-status": Message("Status page"),
    "signed-in": Message("Signed in: {name}"),
    "sign-in": Message("Sign in"),
    "read-only": Message(
        "This page can only be read. To allow people to retry and drop, name them in "
        "`admin.operators`, each with a `password_file`; a reload is enough."
    ),
    "sign-in-first": Message("To retry or drop, sign in with a name of `admin.operators`."),
    "retry": Message("Send once more"),
    "retry:about": Message("It is tried at once, and keeps its place in its order."),
    "retry-all": Message("Send all {count} once more"),
    "drop": Message("Drop"),
    "drop:about": Message(
        "Dropping gives the write up for good: it is deleted here and what waited for it "
        "goes on. The audit keeps your name and the reason."
    ),
    "reason": Message("Reason"),
    "reason:hint": Message("Nothing about a patient"),
    "reveal": Message("Show in full"),
    "reveal:about": Message("Shows the patient's data. The audit keeps your name."),
    "reveal:off": Message("What is about a patient is hidden: `outbox.reveal` is not set."),
    "what": Message("Write"),
    "bytes": Message("Bytes"),
    "finished": Message("Ended"),
    "due": Message("Next attempt"),
    "answer": Message("Answer of the platform"),
    "note": Message("Note"),
    "address": Message("Address"),
    "fields": Message("Header fields"),
    "body": Message("Content"),
    "request_id": Message("Request id"),
    "cut": Message(
        "The rest is left out: {bytes} bytes in all. All of it: `dhp-gateway outbox show --reveal`."
    ),
    "said:retried": Message("Sent once more: {count}. How it ends, you will see here."),
    "said:dropped": Message("The entry is dropped."),
    "refused:sign-in": Message("Name or password is wrong, or missing."),
    "refused:too-many": Message("Too many wrong passwords from your address. Wait a minute."),
    "refused:foreign": Message(
        "This did not come from this page, so nothing was done. Open the page and try again."
    ),
    "refused:old-form": Message("The page was too old, so nothing was done. Open it again."),
    "refused:form": Message("Something is missing in the form, so nothing was done."),
    "refused:no-reason": Message("A reason is missing, so nothing was done."),
    "refused:read-only": Message("Nobody may decide here: `admin.operators` is empty."),
    "refused:hidden": Message("Entries are not shown in full: `outbox.reveal` is not set."),
    "refused:unrecorded": Message(
        "Nothing is shown: the audit has to have it first who sees an entry, and cannot be "
        "written now."
    ),
    "refused:missing": Message(
        "There is no such entry. It may have been forgotten after its time."
    ),
    "refused:not-possible": Message("The entry is in another state by now, so nothing was done."),
    "refused:away": Message(
        "The outbox cannot be reached now, so it is not known what is in it. It is tried "
        "again by itself."
    ),
    "refused:disabled": Message(
        "There is no outbox: `outbox.enabled` is false. With one, writes are kept while the "
        "line is down, and delivered later."
    ),
}

PAGE_WORDS: Final = in_all_languages(_PAGE_MESSAGES)
_OUTBOX_MESSAGES: Final = {**STATUS_MESSAGES, **_ENTRY_CAUSE_MESSAGES, **_PAGE_MESSAGES}
OUTBOX_WORDS: Final = in_all_languages(_OUTBOX_MESSAGES)


_STYLE: Final = STYLE + file_text("admin/static", "outbox.css")
_SCRIPT: Final = f'\n"use strict";\n(() => {{\n{TIMES}  localise(document.body);\n}})();\n'
# The Origin of the page's own forms would be "null" without a referrer (Fetch standard).
HEADERS: Final = {
    **headers(_STYLE, _SCRIPT, forms="'self'"),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OutboxPageError(Exception):
    """The response is a page that only has the reason.

    `text_key` is the key of the reason's text, without the prefix `refused:`.
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

    @property
    def words(self) -> Words:
        """The texts in the page's language."""
        return OUTBOX_WORDS[self.language]

    def link(self, to: str, **query: str) -> str:
        """Return the address of a page with query and language. Templates escape it."""
        asked = urlencode({**query, "lang": query.get("lang", self.language)})
        return f"{self.root_path}{to}?{asked}"


def _render_page(
    view: PageContext,
    template: str,
    here: str = "outbox",
    query: Mapping[str, str] | None = None,
    *,
    answer: str,
    **values: Any,
) -> str:
    """Return a complete page made from a template.

    `here` is the page's path below `root_path`, `query` its query; the links to other languages
    have both. `answer` selects the icon of the tab.
    """
    words = view.words
    unasked = ("said", "count", "sign-in")
    asked = {key: value for key, value in (query or {}).items() if key not in unasked}
    addresses = {
        each: f"{view.root_path}{here}?{urlencode({**asked, 'lang': each})}" for each in LANGUAGES
    }
    return (
        templates()
        .get_template(template)
        .render(
            view=view,
            words=words,
            language=view.language,
            addresses=addresses,
            title=f"{words['outbox']} · {words['title']}",
            icon=tab_icon(answer),
            answer=answer,
            anonymous=ANONYMOUS.name,
            style=_STYLE,
            script=_SCRIPT,
            **values,
        )
    )


def refusal_page(view: PageContext, word: str) -> str:
    """Return a page that only has the text `refused:` of `word`."""
    return _render_page(view, "outbox_refused.html", answer="degraded", word=word)


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
    return _render_page(
        view,
        "outbox_list.html",
        "outbox",
        query,
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


_ACTIONABLE_STATES: Final = frozenset(("waiting", "failed", "unclear"))
_HIDDEN: Final = "***"


def render_entry_page(view: PageContext, entry: EntryListFacts) -> str:
    """Return the page of an entry; it has patient data only if the entry is revealed."""
    state, cause, answer = entry["state"], entry["cause"], entry["answer"]
    return _render_page(
        view,
        "outbox_entry.html",
        f"outbox/{entry['id']}",
        answer="degraded" if state in ("failed", "unclear") else "yes",
        entry=entry,
        is_open=state in _ACTIONABLE_STATES,
        why=explain_cause(cause, view.language),
        remedy=cause_remedy(state, cause, view.language),
        note=_note(answer["note"], view.language)
        if answer is not None and answer["note"]
        else None,
        contents=[part for part in _contents(view, entry) if part[1]],
        is_revealed=entry["request"] is not None and "fields" in entry["request"],
    )


def _note(text: str, language: str) -> str:
    """Return a stored note in a language."""
    # A gateway without an outbox does not load its modules.
    from gateway.outbox.entry import note_of

    return note_of(text).in_language(language)


def _contents(view: PageContext, entry: EntryListFacts) -> list[tuple[str, str]]:
    """Return the names and texts of the parts with patient data; none if they are not revealed."""
    request = entry["request"]
    parts: list[tuple[str, str]] = []
    if request is not None and "fields" in request:
        fields = "\n".join(f"{name}: {value}" for name, value in request["fields"].items())
        parts = [("address", f"{request['method']} {request['address']}"), ("fields", fields)]
        parts += _body(view, "body", request)
    if entry["answer"] is not None and entry["answer"]["body"] != _HIDDEN:
        parts += _body(view, "answer", entry["answer"])
    return parts


def _body(view: PageContext, name: str, content: EntryListFacts) -> list[tuple[str, str]]:
    parts = [(name, content["body"])]
    if "body_bytes" in content:
        told = view.words["cut"].format(bytes=format_number(content["body_bytes"], view.words))
        parts.append(("note", told.replace("`", "")))
    return parts
