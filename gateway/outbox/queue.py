"""The outbox as the rest of the gateway sees it: put in, look, retry, cancel, drop.

Delivery is the business of `gateway.outbox.delivery`, which works on the same store, in this or in
another process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.outbox.entry import EntryState, NewEntry, OutboxEntry, QueuedRequest, StoredResponse
from gateway.outbox.events import (
    STEP_OF_ACTION,
    Actor,
    OutboxEvent,
    OutboxObserver,
    OutboxStep,
    PendingAuditRecord,
    RecordPending,
)
from gateway.outbox.store import (
    Confirm,
    EntryContent,
    EntryGroup,
    NotRecordedError,
    OutboxLimits,
    QueueDepth,
    always_confirm,
)
from gateway.phrases import Phrase

if TYPE_CHECKING:
    # Its database's library is an extra.
    from gateway.outbox.sql_store import SqlStore


class Outbox:
    """Raises `OutboxUnavailableError` wherever the store cannot be reached.

    `observe` is told of what happens here; `wake` is called when there is something to deliver.
    """

    def __init__(
        self,
        store: SqlStore,
        limits: OutboxLimits,
        observe: OutboxObserver,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        # Whether nothing waits, as far as can be told without waiting. Asked for every write.
        self.is_known_empty = store.is_known_empty
        self._limits = limits
        self._limits_alone = replace(limits, max_caller_share=1.0)
        self._observe = observe
        self._wake = wake

    async def is_blocked(self, caller: str, orders: Collection[str]) -> bool:
        """Whether a write of these orders has to queue behind earlier ones."""
        return not self._store.is_known_empty() and await self._store.is_blocked(caller, orders)

    async def enqueue(
        self, draft: NewEntry, confirm: Confirm = always_confirm, *, shared: bool = True
    ) -> OutboxEntry:
        """Keep a write; it is on the disk when this returns. Otherwise as `SqlStore.insert`.

        A caller has no more than its share where the outbox is `shared` with others.
        """
        limits = self._limits if shared else self._limits_alone
        entry = await self._store.insert(draft, limits, confirm)
        self._observe(OutboxEvent(OutboxStep.QUEUED, entry, draft.cause))
        self._wake()
        return entry

    async def entry(self, entry_id: str, caller: str | None = None) -> OutboxEntry | None:
        """One entry, with `caller` only if it is that caller's."""
        entry = await self._store.entry(entry_id)
        return None if entry is None or caller not in (None, entry.caller) else entry

    async def entries(
        self,
        *,
        caller: str | None = None,
        states: Collection[EntryState] = (),
        cause: str | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> Sequence[OutboxEntry]:
        """Entries in the order of arrival, with numbers above `after`; no states: all."""
        return await self._store.entries(
            caller=caller, states=states, cause=cause, after=after, limit=limit
        )

    async def undelivered_groups(self) -> Sequence[EntryGroup]:
        """What is not delivered, by state, cause and caller."""
        return await self._store.undelivered_groups()

    async def request(self, entry_id: str) -> QueuedRequest | None:
        """The write itself, in clear; None when it was delivered, cancelled or dropped."""
        return await self._store.request(entry_id)

    async def response(self, entry_id: str) -> StoredResponse | None:
        """How it ended, in clear; None while it has not."""
        return await self._store.response(entry_id)

    async def cancel(self, entry_id: str, caller: str) -> OutboxEntry | None:
        """The caller takes back what had no effect: what waits without doubt, or has failed.

        None: the caller has no such entry. Raises `EntryStateError`.
        """
        return await self._apply_action(entry_id, EntryState.CANCELLED, caller=caller)

    async def retry(self, entry_id: str, actor: Actor | None = None) -> OutboxEntry | None:
        """A person sends what has failed or is unclear once more, or at once what waits.

        With `actor` the step is noted until an audit has it. None: there is no such entry. Raises
        `EntryStateError`.
        """
        return await self._apply_action(entry_id, EntryState.WAITING, actor=actor)

    async def retry_failed(
        self, cause: str | None = None, actor: Actor | None = None
    ) -> AsyncIterator[OutboxEntry]:
        """A person sends all that have failed once more, of one cause or of any."""
        after = 0
        # By number, for what fails again meanwhile is not to be sent for ever.
        while moved := await self._store.retry_failed(cause, after=after, actor=actor):
            after = moved[-1].number
            for entry in moved:
                self._notify(OutboxStep.RETRIED, entry, actor)
                yield entry

    async def drop(self, entry_id: str, actor: Actor | None = None) -> OutboxEntry | None:
        """A person gives up what is not delivered; otherwise as `retry`."""
        return await self._apply_action(entry_id, EntryState.DROPPED, actor=actor)

    async def content(self, entry_id: str, actor: Actor | None = None) -> EntryContent | None:
        """All of an entry, in clear; that `actor` saw it is noted until an audit has it."""
        content = await self._store.content(entry_id, actor)
        if content is not None and actor is not None:
            self._notify(OutboxStep.REVEALED, content.entry, actor)
        return content

    async def revealed(
        self, entry_id: str, actor: Actor, record: RecordPending
    ) -> EntryContent | None:
        """All of an entry, in clear, once `record` has it that `actor` sees it.

        None: there is no such entry. Raises `NotRecordedError`.
        """
        content = await self._store.content(entry_id)
        if content is not None:
            entry = content.entry
            if not await record(
                [
                    PendingAuditRecord(
                        OutboxStep.REVEALED, entry.id, entry.caller, actor, time.time()
                    )
                ]
            ):
                raise NotRecordedError(Phrase("the audit cannot be written"))
            self._notify(OutboxStep.REVEALED, entry, actor)
        return content

    async def record_pending(self, record: RecordPending) -> int:
        """Have the oldest notes recorded and forgotten, nobody else having them meanwhile.

        How many are forgotten: none are while `record` cannot, or there are none.
        """
        return await self._store.record_pending(record)

    async def depth(self) -> QueueDepth:
        """How full it is."""
        return await self._store.depth()

    async def _apply_action(
        self,
        entry_id: str,
        to: EntryState,
        *,
        caller: str | None = None,
        actor: Actor | None = None,
    ) -> OutboxEntry | None:
        entry = await self._store.apply_action(entry_id, to, caller=caller, actor=actor)
        if entry is not None:
            self._notify(STEP_OF_ACTION[to], entry, actor)
        return entry

    def _notify(self, step: OutboxStep, entry: OutboxEntry, actor: Actor | None) -> None:
        self._observe(OutboxEvent(step, entry, is_audit_pending=actor is not None))
        # What it blocked may go on.
        self._wake()
