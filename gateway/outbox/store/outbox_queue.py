"""The outbox as the rest of the gateway uses it: enqueue, read, retry, cancel, drop.

`gateway.outbox.delivery` delivers from the same store, in this or in another gateway.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from typing import TYPE_CHECKING

from gateway.i18n import Message
from gateway.outbox.entry import (
    STEP_OF_ACTION,
    EntryState,
    OutboxEvent,
    OutboxStep,
    PendingAuditRecord,
)
from gateway.outbox.store.store_types import NotRecordedError, always_confirm

if TYPE_CHECKING:
    from gateway.outbox.entry import (
        Actor,
        NewEntry,
        OutboxEntry,
        OutboxObserver,
        QueuedRequest,
        RecordPending,
        StoredResponse,
    )
    from gateway.outbox.store.outbox_store import SqlStore
    from gateway.outbox.store.store_types import (
        Confirm,
        EntryContent,
        EntryGroup,
        QueueDepth,
    )


class Outbox:
    """The interface to a store. All methods raise `OutboxUnavailableError` if it cannot be reached.

    `observe` receives every step taken here; `wake` is called when there may be something to
    deliver.
    """

    def __init__(
        self,
        *,
        store: SqlStore,
        observe: OutboxObserver,
        wake: Callable[[], None],
    ) -> None:
        self._store = store
        # True if no entry blocks, as far as that is known without waiting. Called for every write.
        self.is_known_empty = store.is_known_empty
        self._observe = observe
        self._wake = wake

    async def is_blocked(self, caller: str, ordering_keys: Collection[str]) -> bool:
        """Return whether a write with these ordering keys has to queue behind earlier entries."""
        return not self._store.is_known_empty() and await self._store.is_blocked(
            caller, ordering_keys
        )

    async def enqueue(
        self, new_entry: NewEntry, confirm: Confirm = always_confirm, *, shared: bool = True
    ) -> OutboxEntry:
        """Store a write; it is on disk when this returns. Raises as `SqlStore.insert`.

        A caller has no more than its share where the outbox is `shared` with others.
        """
        entry = await self._store.insert(new_entry, confirm, shared=shared)
        self._observe(OutboxEvent(OutboxStep.QUEUED, entry, new_entry.cause))
        self._wake()
        return entry

    async def entry(self, entry_id: str, caller: str | None = None) -> OutboxEntry | None:
        """Return one entry; with `caller` only if the entry is that caller's."""
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
        """Return entries in the order of arrival, with numbers above `after`; no `states`: all."""
        return await self._store.entries(
            caller=caller, states=states, cause=cause, after=after, limit=limit
        )

    async def undelivered_groups(self) -> Sequence[EntryGroup]:
        """Return the number of undelivered entries by state, cause and caller."""
        return await self._store.undelivered_groups()

    async def request(self, entry_id: str) -> QueuedRequest | None:
        """Return the write in plain text; None when it was delivered, cancelled or dropped."""
        return await self._store.request(entry_id)

    async def response(self, entry_id: str) -> StoredResponse | None:
        """Return the outcome in plain text; None while there is none."""
        return await self._store.response(entry_id)

    async def cancel(self, entry_id: str, caller: str) -> OutboxEntry | None:
        """Cancel an entry of this caller that has had no effect: waiting without doubt, or failed.

        None: the caller has no such entry. Raises `EntryStateError`.
        """
        return await self._apply_action(entry_id, EntryState.CANCELLED, caller=caller)

    async def retry(self, entry_id: str, actor: Actor | None = None) -> OutboxEntry | None:
        """Retry, for an operator, an entry that is failed or unclear; a waiting one is due at once.

        With `actor` the step is stored as a pending audit record. None: there is no such entry.
        Raises `EntryStateError`.
        """
        return await self._apply_action(entry_id, EntryState.WAITING, actor=actor)

    async def retry_failed(
        self, cause: str | None = None, actor: Actor | None = None
    ) -> AsyncIterator[OutboxEntry]:
        """Retry, for an operator, all failed entries, of one cause or of any, and yield them."""
        after = 0
        # In the order of the numbers, so that an entry that fails again meanwhile is not retried
        # forever.
        while retried := await self._store.retry_failed(cause, after=after, actor=actor):
            after = retried[-1].number
            for entry in retried:
                self._notify(OutboxStep.RETRIED, entry, actor)
                yield entry

    async def drop(self, entry_id: str, actor: Actor | None = None) -> OutboxEntry | None:
        """Give up an entry that is not delivered, for an operator; otherwise as `retry`."""
        return await self._apply_action(entry_id, EntryState.DROPPED, actor=actor)

    async def content(self, entry_id: str, actor: Actor | None = None) -> EntryContent | None:
        """Return all of an entry in plain text; None: there is no such entry.

        With `actor` a pending audit record is stored that this actor has seen it.
        """
        content = await self._store.content(entry_id, actor)
        if content is not None and actor is not None:
            self._notify(OutboxStep.REVEALED, content.entry, actor)
        return content

    async def reveal(
        self, entry_id: str, actor: Actor, record: RecordPending
    ) -> EntryContent | None:
        """Return all of an entry in plain text, once `record` has recorded that `actor` sees it.

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
                raise NotRecordedError(Message("the audit cannot be written"))
            self._notify(OutboxStep.REVEALED, entry, actor)
        return content

    async def record_pending(self, record: RecordPending) -> int:
        """Have the oldest pending audit records recorded and deleted, by one process at a time.

        Returns how many were deleted: 0 if there are none, or while `record` fails.
        """
        return await self._store.record_pending(record)

    async def depth(self) -> QueueDepth:
        """Return the number of entries by state, and the size and age of those that block."""
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
        # Entries that it blocked may be due now.
        self._wake()
