"""The page of one entry: its facts, and the actions that an operator can choose."""

from __future__ import annotations

from typing import Final

from gateway.admin.outbox.causes import cause_remedy, explain_cause
from gateway.admin.outbox.frame import PageContext, render_page
from gateway.admin.outbox.list_page import EntryListFacts
from gateway.admin.status.markup import format_number

_ACTIONABLE_STATES: Final = frozenset(("waiting", "failed", "unclear"))
_HIDDEN: Final = "***"


def render_entry_page(view: PageContext, entry: EntryListFacts) -> str:
    """Return the page of an entry; it has patient data only if the entry is revealed."""
    state, cause, answer = entry["state"], entry["cause"], entry["answer"]
    return render_page(
        *(view, "outbox_entry.html", f"outbox/{entry['id']}"),
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
    from gateway.outbox.notes import note_of

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
