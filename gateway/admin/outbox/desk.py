"""Answers questions of the outbox page in the process that has opened the outbox.

That is this process or a worker. Questions and answers are plain data that can be sent to another
process. Their members, by the value of `ask`:

    list           states, cause, caller, after: all `groups`, a page of `entries`, `next` for after
    entry          id: the `entry` with patient data masked
    reveal         id: the `entry` in clear
    retry, drop    id, reason: the `state` of the entry, and whether the action was `done`
    retry-failed   cause: the number of entries `moved`

A question that changes entries or shows patient data names the `operator`. The answer has `away` if
the outbox cannot be reached, and `unrecorded` if the audit record cannot be written; it is None if
there is no such entry.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any, Final

from gateway.outbox.entry import BLOCKING, EntryState
from gateway.outbox.events import Actor, RecordPending
from gateway.outbox.queue import Outbox
from gateway.outbox.shown import content_view, entry_view, format_time
from gateway.outbox.store import EntryStateError, NotRecordedError, OutboxError

OutboxFacts = dict[str, Any]
AskOutbox = Callable[[OutboxFacts], Awaitable[OutboxFacts | None]]

_PAGE: Final = 100
# Characters of a body that are shown in clear. A complete body may be too large for a browser and
# for the channel between processes.
_MAX_BODY_CHARACTERS: Final = 256 * 1024
_CHANNEL: Final = "page"


class OutboxAdminApi:
    """Answers questions about one outbox, with up to `page` entries in a list.

    `record` writes audit records of what an operator has seen, and returns whether they are
    written. It is None where there is no audit trail; then no entry can be revealed.
    """

    def __init__(self, outbox: Outbox, record: RecordPending | None, *, page: int = _PAGE) -> None:
        self._page_size = page
        self._outbox = outbox
        self._record = record
        self._answers: dict[str, AskOutbox] = {
            "list": self._list,
            "entry": self._entry,
            "reveal": self._reveal,
            "retry": self._move,
            "drop": self._move,
            "retry-failed": self._retry_failed,
        }

    async def handle(self, question: OutboxFacts) -> OutboxFacts | None:
        """Return the answer to a question, None if there is no such entry."""
        try:
            return await self._answers[question["ask"]](question)
        except OutboxError:
            return {"away": True}

    async def _list(self, question: OutboxFacts) -> OutboxFacts:
        groups = await self._outbox.undelivered_groups()
        found = await self._outbox.entries(
            states=[EntryState(name) for name in question["states"]] or tuple(BLOCKING),
            cause=question["cause"],
            caller=question["caller"],
            after=question["after"],
            limit=self._page_size + 1,
        )
        page = found[: self._page_size]
        return {
            "at": format_time(time.time()),
            "groups": [{**asdict(group), "oldest": format_time(group.oldest)} for group in groups],
            "entries": [entry_view(entry) for entry in page],
            "next": page[-1].number if len(found) > self._page_size else None,
        }

    async def _entry(self, question: OutboxFacts) -> OutboxFacts | None:
        content = await self._outbox.content(question["id"])
        return None if content is None else {"entry": content_view(content, reveal=False)}

    async def _reveal(self, question: OutboxFacts) -> OutboxFacts | None:
        actor = self._actor(question)
        if actor is None or self._record is None:
            return None
        try:
            content = await self._outbox.reveal(question["id"], actor, self._record)
        except NotRecordedError:
            return {"unrecorded": True}
        return (
            None
            if content is None
            else {"entry": _truncate_body(content_view(content, reveal=True))}
        )

    async def _move(self, question: OutboxFacts) -> OutboxFacts | None:
        move = self._outbox.drop if question["ask"] == "drop" else self._outbox.retry
        try:
            entry = await move(question["id"], self._actor(question))
        except EntryStateError as refusal:
            return {"done": False, "state": refusal.state.value}
        return None if entry is None else {"done": True, "state": entry.state.value}

    async def _retry_failed(self, question: OutboxFacts) -> OutboxFacts:
        moved = self._outbox.retry_failed(question["cause"], self._actor(question))
        return {"moved": sum([1 async for _ in moved])}

    def _actor(self, question: OutboxFacts) -> Actor | None:
        if self._record is None:
            return None
        return Actor(_CHANNEL, question["operator"], question.get("reason", ""))


def _truncate_body(document: OutboxFacts) -> OutboxFacts:
    for part in ("request", "answer"):
        content = document[part]
        if content is not None and len(content["body"]) > _MAX_BODY_CHARACTERS:
            content["body_bytes"] = len(content["body"].encode())
            content["body"] = content["body"][:_MAX_BODY_CHARACTERS]
    return document
