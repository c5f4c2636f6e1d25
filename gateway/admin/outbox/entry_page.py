"""The page of one entry: its facts, and the actions that an operator can choose."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Final

from gateway.admin.outbox.causes import cause_remedy, explain_cause
from gateway.admin.outbox.frame import PageContext, render_frame
from gateway.admin.outbox.list_page import EntryListFacts, caller_label
from gateway.admin.status.markup import (
    Html,
    code_element,
    format_number,
    mark_commands,
    time_element,
    to_html,
)

_ACTIONABLE_STATES: Final = frozenset(("waiting", "failed", "unclear"))
_HIDDEN: Final = "***"


def render_entry_page(view: PageContext, entry: EntryListFacts) -> str:
    """Return the page of an entry; it has patient data only if the entry is revealed."""
    words, state = view.words, entry["state"]
    facts = "".join(
        f"<dt>{escape(words[name])}</dt><dd>{to_html(value)}</dd>"
        for name, value in _facts(view, entry)
    )
    back = f'<p class="more"><a href="{view.link("outbox")}">{escape(words["back"])}</a></p>'
    main = (
        f'<section id="entry" class="card">'
        f"<h2>{escape(words['id'])} {code_element(entry['id'])}</h2>"
        f"<dl>{facts}</dl></section>{_contents(view, entry)}"
        f"{_decisions(view, entry) if state in _ACTIONABLE_STATES else ''}{back}"
    )
    answer = "degraded" if state in ("failed", "unclear") else "yes"
    return render_frame(view, main, f"outbox/{entry['id']}", {}, answer=answer)


def _facts(view: PageContext, entry: EntryListFacts) -> Iterator[tuple[str, str]]:
    words, state, cause = view.words, entry["state"], entry["cause"]
    yield "state", words.get(f"card:{state}", words[f"entry:{state}"])
    yield "caller", caller_label(entry["caller"], view)
    yield "queued", time_element(entry["queued_at"])
    if state in _ACTIONABLE_STATES:
        yield "cause", Html(mark_commands(explain_cause(cause, view.language)))
        yield "remedy", Html(mark_commands(cause_remedy(state, cause, view.language)))
    for name, at in (("due", entry["due_at"]), ("finished", entry["finished_at"])):
        if at is not None:
            yield name, time_element(at)
    yield "attempts", str(entry["attempts"])
    yield "bytes", format_number(entry["bytes"], words)
    request, answer = entry["request"], entry["answer"]
    if request is not None:
        yield "what", code_element(f"{request['interaction']} {request['resource']}".rstrip())
        yield "request_id", code_element(request["request_id"])
    if answer is not None:
        yield "answer", code_element(answer["reason"] or f"HTTP {answer['status']}")
        if answer["note"]:
            # A gateway without an outbox does not load its modules.
            from gateway.outbox.notes import note_of

            yield "note", note_of(answer["note"]).in_language(view.language)


def _contents(view: PageContext, entry: EntryListFacts) -> str:
    """Return the section with patient data, "" if the entry is not revealed."""
    request = entry["request"]
    parts: list[tuple[str, str]] = []
    if request is not None and "fields" in request:
        fields = "\n".join(f"{name}: {value}" for name, value in request["fields"].items())
        parts = [("address", f"{request['method']} {request['address']}"), ("fields", fields)]
        parts += _body(view, "body", request)
    if entry["answer"] is not None and entry["answer"]["body"] != _HIDDEN:
        parts += _body(view, "answer", entry["answer"])
    shown = "".join(
        f"<h3>{escape(view.words[name])}</h3><pre tabindex=0>{escape(text)}</pre>"
        for name, text in parts
        if text
    )
    return f'<section id="contents" class="card">{shown}</section>' if shown else ""


def _body(view: PageContext, name: str, content: EntryListFacts) -> list[tuple[str, str]]:
    parts = [(name, content["body"])]
    if "body_bytes" in content:
        told = view.words["cut"].format(bytes=format_number(content["body_bytes"], view.words))
        parts.append(("note", told.replace("`", "")))
    return parts


def _decisions(view: PageContext, entry: EntryListFacts) -> str:
    words, entry_id = view.words, entry["id"]
    retry = view.form("retry", f"<button>{escape(words['retry'])}</button>", id=entry_id)
    cards = [
        (words["retry"], escape(words["retry:about"]), retry),
        (words["drop"], mark_commands(words["drop:about"]), _drop(view, entry_id)),
    ]
    revealed = entry["request"] is not None and "fields" in entry["request"]
    if not revealed:
        button = f"<button>{escape(words['reveal'])}</button>"
        form = view.form("reveal", button, id=entry_id) if view.reveal else ""
        about = words["reveal:about" if view.reveal else "reveal:off"]
        cards.append((words["reveal"], mark_commands(about), form))
    shown = "".join(
        f'<section class="card"><h2>{escape(title)}</h2><p>{about}</p>{form}</section>'
        for title, about, form in cards
    )
    return f'<div class="decisions">{shown}</div>' if view.operator is not None else ""


def _drop(view: PageContext, entry_id: str) -> str:
    words = view.words
    field = (
        f'<label for="reason">{escape(words["reason"])}</label><input id="reason" name="reason" '
        f'required maxlength="300" autocomplete="off" aria-describedby="hint">'
        f'<p id="hint">{escape(words["reason:hint"])}</p>'
    )
    button = f'<button class="grave">{escape(words["drop"])}</button>'
    return view.form("drop", button, field, id=entry_id)
