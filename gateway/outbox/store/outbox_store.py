"""The store of the outbox, in a SQL database: its entries and its pending audit records.

A gateway and commands share it, with PostgreSQL replicas, too. An entry that is being sent is
leased to one of them. A lease that is not renewed ends, and the entry is then treated as after an
attempt of unknown effect. The store's clock may be set, so that a process that recovers leases must
have observed by its own clock that they were not renewed.

Every method is atomic and, when it returns, its changes are on disk. All raise
`OutboxUnavailableError` when the database cannot be reached. Durations are seconds; `owner` names
one gateway. Methods run to their end, also when their caller is cancelled: a transaction that is
cancelled midway would leave its connection, and SQLite's lock, to a thread that does not know of
the cancellation.

Pending audit records are steps that stay in the store until an audit trail has recorded them. They
are stored because the process that took the step had no audit trail to write to.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, TypeVar

import sqlalchemy as sa

from gateway.i18n import Message
from gateway.outbox.entry import (
    ALL_KEYS,
    BLOCKING,
    STEP_OF_ACTION,
    Actor,
    EntryContent,
    EntryState,
    NewEntry,
    OutboxEntry,
    OutboxEvent,
    OutboxObserver,
    OutboxStep,
    PendingAuditRecord,
    RecordPending,
    StoredResponse,
)
from gateway.outbox.store import queries, transitions
from gateway.outbox.store.sealed_contents import (
    ContentCipher,
    ContentKind,
    EncryptedContents,
    load_segments,
    unpack_request,
    unpack_response,
)
from gateway.outbox.store.store_types import (
    EntryGroup,
    Lease,
    NotRecordedError,
    OutboxConfigurationError,
    OutboxFullError,
    OutboxUnavailableError,
    QueueDepth,
)
from gateway.outbox.store.tables import (
    METADATA,
    VERSION,
    entries_table,
    meta_table,
    pending_records_table,
    segments_table,
)
from gateway.outbox.store.work_groups import ShieldedTasks, WorkGroups

if TYPE_CHECKING:
    from gateway.config.operations_settings import OutboxSettings
    from gateway.outbox.attempt_result import Decision
    from gateway.outbox.store.database import Database

_P = ParamSpec("_P")
_T = TypeVar("_T")


def _shielded(
    method: Callable[Concatenate[OutboxStore, _P], Coroutine[Any, Any, _T]],
) -> Callable[Concatenate[OutboxStore, _P], Coroutine[Any, Any, _T]]:
    """Return the method as one that completes even if its caller is cancelled."""

    async def run_to_end(self: OutboxStore, /, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        return await self.shielded_tasks.run(method(self, *args, **kwargs))

    update_wrapper(run_to_end, method)
    return run_to_end


_ID_BYTES: Final = 16
# The most entries that one transaction recovers, purges or retries, so that none takes long.
_RECOVERY_BATCH: Final = 100
_PURGE_BATCH: Final = 200
_RETRY_BATCH: Final = 500
# Bytes of the writes stored in one transaction, so that none takes long.
_MAX_GROUP_BYTES: Final = 1024 * 1024
# Ordering keys looked up in one query. SQLite allows 32,766 parameters.
_MAX_GROUP_DIGESTS: Final = 8192
# The digests of ordering keys, and the future that gets those that block.
_Question = tuple[Sequence[bytes], asyncio.Future[frozenset[bytes]]]
# Which decisions were recorded, the entries claimed with their requests, when that was, and whether
# it was tried to claim any.
_RecordedAndClaimed = tuple[Sequence[bool], Mapping[OutboxEntry, Sequence[bytes]], float, bool]
_SELECT_META: Final = sa.select(meta_table)
# Bytes of the row of an ordering key, with its indexes.
_KEY_ROW_BYTES: Final = 256


class OutboxStore:
    """The store. `gateway.outbox.open_outbox` makes it; `prepare` must be called first.

    `observers` are called for every step of an entry that is taken here, after its transaction.
    `clock` returns seconds since 1970, for audit records that are not stored.
    """

    def __init__(
        self,
        *,
        database: Database,
        cipher: ContentCipher,
        settings: OutboxSettings,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._clock = clock
        self.settings = settings
        self.observers: list[OutboxObserver] = []
        self._contents = EncryptedContents(cipher)
        self._cipher = cipher
        self.shielded_tasks = ShieldedTasks()
        self._meta_values = {"schema": str(VERSION), "key": cipher.check}
        self._arrivals = WorkGroups(
            self._store_group, self.shielded_tasks, max_weight=_MAX_GROUP_BYTES
        )
        self._questions = WorkGroups(
            self._answer_questions, self.shielded_tasks, max_weight=_MAX_GROUP_DIGESTS
        )
        self._recorded: set[int] = set()
        # The Unix time of the last claim, None before the first one. Or that of decisions recorded
        # later, whose delays count from then.
        self._claimed_at: float | None = None
        # True if no entry blocks, as far as that is known at once.
        self.is_known_empty = database.is_known_empty

    @property
    def is_exclusive(self) -> bool:
        """Whether other gateways are kept away from the database."""
        return self._database.is_exclusive

    @property
    def is_disk_full(self) -> bool:
        """Whether the disk has no space but for what deliveries need."""
        return self._database.is_disk_full

    def notify(self, *events: OutboxEvent) -> None:
        """Tell the observers what happened to entries."""
        for event in events:
            for observe in self.observers:
                observe(event)

    async def close(self) -> None:
        """Close the database after the running methods have ended."""
        await self.shielded_tasks.wait_all()
        await self._database.close()

    @_shielded
    async def prepare(self) -> None:
        """Create the tables; nothing is written if they are there.

        Before that all other methods raise `OutboxUnavailableError`. Raises
        `OutboxConfigurationError` for another key or an unknown schema version.
        """
        await self._database.write(self._prepare)

    def _prepare(self, connection: sa.Connection) -> None:
        self._database.lock_inserts(connection)
        METADATA.create_all(connection)
        stored = _stored_meta(connection)
        if stored == self._meta_values:
            return
        if (schema := stored.get("schema", str(VERSION))) != str(VERSION):
            raise OutboxConfigurationError(
                Message("was written by another version (schema {schema})", schema=schema)
            )
        has_other_key = stored and stored.get("key") != self._meta_values["key"]
        if has_other_key and _has_rows(connection, entries_table):
            raise OutboxConfigurationError(
                Message("contains entries that were encrypted with another key")
            )
        connection.execute(sa.delete(meta_table))
        connection.execute(
            sa.insert(meta_table),
            [{"name": name, "value": value} for name, value in self._meta_values.items()],
        )

    @_shielded
    async def entry(self, entry_id: str, caller: str | None = None) -> OutboxEntry | None:
        """Return one entry; with `caller` only if the entry is that caller's."""
        entry = await self._database.read(_find_entry, entry_id)
        return None if entry is None or caller not in (None, entry.caller) else entry

    @_shielded
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
        query = queries.select_entries().where(entries_table.c.number > after)
        if caller is not None:
            query = query.where(entries_table.c.caller == caller)
        if cause is not None:
            query = query.where(entries_table.c.cause == cause)
        if states:
            query = query.where(entries_table.c.state.in_(states))
        query = query.order_by(entries_table.c.number).limit(limit)
        return [queries.entry_from_row(row) for row in await self._database.read(_rows, query)]

    @_shielded
    async def undelivered_groups(self) -> Sequence[EntryGroup]:
        """Return the number of blocking entries by state, cause and caller."""
        columns = (entries_table.c.state, entries_table.c.cause, entries_table.c.caller)
        aggregates = (sa.func.count(), sa.func.min(entries_table.c.queued_at))
        query = (
            sa.select(*columns, *aggregates)
            .where(entries_table.c.state.in_(BLOCKING))
            .group_by(*columns)
        )
        rows = await self._database.read(_rows, query.order_by(*columns))
        return [EntryGroup(EntryState(state), *rest) for state, *rest in rows]

    @_shielded
    async def response(self, entry_id: str) -> StoredResponse | None:
        """Return the outcome in plain text; None while there is none."""
        found = await self._database.read(_find_sealed_entry, entry_id, "response")
        return None if found is None else await self._decrypt_response(found)

    async def _decrypt_response(self, found: _SealedEntry) -> StoredResponse | None:
        plain = await self._contents.decrypt(found.contents["response"], found.entry, "response")
        return None if plain is None else unpack_response(plain)

    @_shielded
    async def depth(self) -> QueueDepth:
        """Return the number of entries by state, and the size and age of those that block."""
        return await self._database.read(_depth)

    async def enqueue(
        self,
        new_entry: NewEntry,
        confirm: Callable[[], None] = lambda: None,
        *,
        shared: bool = False,
    ) -> OutboxEntry:
        """Store a write and return its entry. Raises `OutboxFullError`.

        With `shared` the limits of one caller's share apply too. `confirm` is called at the very
        end, when no other process can insert entries, and for all writes in the order of their
        entries. What it raises is raised here, and nothing is stored. Writes that come while others
        are being stored share the next transaction.
        """
        entry_id = secrets.token_hex(_ID_BYTES)
        sealed, size = await self._contents.encrypt_request(entry_id, new_entry)
        digests = self._key_digests(new_entry.caller, new_entry.ordering_keys)
        arrival = transitions.Arrival(
            new_entry=new_entry,
            id=entry_id,
            sealed=sealed,
            digests=digests,
            size=size + _KEY_ROW_BYTES * len(digests),
            is_share_limited=shared,
            confirm=confirm,
            stored=asyncio.get_running_loop().create_future(),
        )
        self._arrivals.add(arrival, arrival.size)
        return await asyncio.shield(arrival.stored)

    async def _store_group(self, group: Sequence[transitions.Arrival]) -> None:
        """Store writes in one transaction, and give each its result."""
        try:
            await self._store_together(group)
        except OutboxFullError as error:
            undecided = [arrival for arrival in group if not arrival.stored.done()]
            if len(undecided) == 1:
                undecided[0].stored.set_exception(error)
                return
            # The disk has no room for all of them, but may have some for the smaller ones.
            for arrival in undecided:
                await self._store_group([arrival])
        except Exception as error:
            for arrival in group:
                if not arrival.stored.done():
                    arrival.stored.set_exception(error)

    async def _store_together(self, group: Sequence[transitions.Arrival]) -> None:
        size = sum(arrival.size for arrival in group)
        async with self._database.write_transaction(adds=size) as transaction:
            entries, refusals = await transaction.run(self._insert_arrivals, group)
            for arrival, refusal in refusals.items():
                arrival.stored.set_exception(refusal)
            # A lock, a slow disk or a distant server may have taken time.
            unconfirmed = [
                entry.number for arrival, entry in entries.items() if not arrival.is_confirmed()
            ]
            if unconfirmed:
                await transaction.run(transitions.remove_arrivals, unconfirmed)
        for arrival, entry in entries.items():
            if not arrival.stored.done():
                self.notify(OutboxEvent(OutboxStep.QUEUED, entry, entry.cause))
                arrival.stored.set_result(entry)

    def _insert_arrivals(
        self, connection: sa.Connection, arrivals: Sequence[transitions.Arrival]
    ) -> tuple[
        Mapping[transitions.Arrival, OutboxEntry], Mapping[transitions.Arrival, OutboxFullError]
    ]:
        self._database.lock_inserts(connection)
        self._require_same_key(connection)
        refusals = transitions.exceeding_limits(connection, arrivals, self.settings)
        accepted = [arrival for arrival in arrivals if arrival not in refusals]
        if not accepted:
            return {}, refusals
        now = self._database.now(connection)
        return transitions.insert_arrivals(connection, accepted, now), refusals

    async def is_blocked(self, caller: str, ordering_keys: Collection[str]) -> bool:
        """Return whether an undelivered entry has one of these ordering keys, or ALL_KEYS."""
        if ordering_keys == ALL_KEYS:
            query = queries.exists_blocking_of_caller(caller)
            return await self.shielded_tasks.run(self._database.read(_has, query))
        digests = self._key_digests(caller, (*ordering_keys, *ALL_KEYS))
        blocking: asyncio.Future[frozenset[bytes]] = asyncio.get_running_loop().create_future()
        self._questions.add((digests, blocking), len(digests))
        return not (await asyncio.shield(blocking)).isdisjoint(digests)

    async def _answer_questions(self, group: Sequence[_Question]) -> None:
        """Find which ordering keys of all these questions block."""
        digests = [digest for digests, _ in group for digest in digests]
        try:
            blocking = await self._database.read(_blocking_digests, digests)
        except Exception as error:
            for _, answer in group:
                answer.set_exception(error)
        else:
            for _, answer in group:
                answer.set_result(blocking)

    def _key_digests(self, caller: str, ordering_keys: Collection[str]) -> list[bytes]:
        return [self._cipher.ordering_key_digest(caller, key) for key in ordering_keys]

    @_shielded
    async def record_and_claim(
        self,
        owner: str,
        decisions: Sequence[Decision],
        *,
        max_claims: int,
        max_leased: int | None = None,
        size: int = 0,
        lease: float = 0.0,
        prefer_verifiable: bool = False,
    ) -> tuple[Sequence[bool], Sequence[EntryContent]]:
        """Record the decisions about attempts, and claim up to `max_claims` due entries.

        Returns for each decision whether it was recorded: not where the lease was lost; and the
        claimed entries, with a request of None where the stored one cannot be decrypted.
        Each claimed entry is leased for `lease` seconds, counts one more attempt, and is not
        blocked. Together they have at most `size` bytes, or it is one; of all gateways at most
        `max_leased` are leased then. With `prefer_verifiable` entries that would not end as unclear
        in an outage come first. A delivery counts also when its lease was lost, unless the entry
        was claimed again or an operator has decided about it.
        """
        sealed = await self._contents.encrypt_responses(decisions)

        def record_and_claim(connection: sa.Connection) -> _RecordedAndClaimed:
            if max_leased is not None or any(map(transitions.is_delivered, decisions)):
                self._database.lock_inserts(connection)
            # Read before the clock: another replica may postpone an entry at any moment.
            latest = self._latest_moment(connection) if max_claims else 0.0
            now = self._database.now(connection)
            recorded = transitions.record_decisions(connection, owner, decisions, sealed, now)
            free = max_claims
            if max_leased is not None:
                free = min(max_claims, max_leased - _count_leased(connection, now))
            if free <= 0:
                return recorded, {}, now, False
            if not any(recorded):
                # Claimed entries keep another process from preparing it with another key.
                self._require_same_key(connection)
            transitions.reset_delays_after_clock_step(connection, latest, now)
            ready = queries.select_ready(now, free, prefer_verifiable=prefer_verifiable)
            claimed = transitions.claim_entries(connection, ready, size, owner, now + lease)
            return recorded, claimed, now, True

        recorded, claimed, now, has_claimed = await self._database.write(record_and_claim)
        self._note_moment(now, has_claimed=has_claimed)
        return recorded, [await self._decrypt_claimed(*item) for item in claimed.items()]

    def _note_moment(self, now: float, *, has_claimed: bool) -> None:
        if has_claimed:
            self._claimed_at = now
        elif self._claimed_at is not None:
            self._claimed_at = max(self._claimed_at, now)

    def _latest_moment(self, connection: sa.Connection) -> float:
        """Return the latest Unix time known of the clock that measured the delays."""
        if self._claimed_at is not None:
            return self._claimed_at
        return connection.execute(queries.select_latest_delay()).scalar_one() or 0.0

    async def _decrypt_claimed(self, entry: OutboxEntry, sealed: Sequence[bytes]) -> EntryContent:
        try:
            plain = await self._contents.decrypt(sealed, entry, "request")
        except OutboxConfigurationError:
            plain = None
        return EntryContent(entry, None if plain is None else unpack_request(plain))

    @_shielded
    async def renew(self, owner: str, ids: Collection[str], *, lease: float) -> Collection[str]:
        """Renew the leases of this owner that have not ended. Return the ids it still holds."""

        def renew(connection: sa.Connection) -> Collection[str]:
            now = self._database.now(connection)
            held = connection.execute(
                sa.update(entries_table)
                .where(
                    entries_table.c.id.in_(ids),
                    entries_table.c.owner == owner,
                    entries_table.c.state == EntryState.SENDING,
                    # A lease that has ended may be taken by another process at any moment and must
                    # not be revived.
                    entries_table.c.leased_until > now,
                )
                .values(leased_until=now + lease)
                .returning(entries_table.c.id)
            )
            return frozenset(held.scalars())

        return await self._database.write(renew)

    @_shielded
    async def make_due(self, ids: Collection[str]) -> None:
        """Make those of these entries that wait due at once, except entries to be verified."""
        if ids:
            await self._database.write(
                _execute, queries.update_due_now(entries_table.c.id.in_(ids))
            )

    def _require_same_key(self, connection: sa.Connection) -> None:
        # Another process may have prepared the store with a new key while it was empty.
        if _stored_meta(connection) != self._meta_values:
            raise OutboxUnavailableError(
                Message("is in use with another key or by another version")
            )

    @_shielded
    async def leases(self) -> Collection[Lease]:
        """Return all leases, of any process, ended or not."""
        return [Lease(*row) for row in await self._database.read(_rows, queries.select_leases())]

    @_shielded
    async def recover_leases(
        self, standing: Collection[Lease], *, settle: float, dead: Collection[str] = ()
    ) -> bool:
        """Recover some entries with one of these leases that has ended or whose owner is `dead`.

        Their `recovery` decides what follows. Entries to be verified are due after `settle`
        seconds. Returns whether there were any.
        """

        def recover(connection: sa.Connection) -> list[OutboxEvent]:
            self._require_same_key(connection)
            now = self._database.now(connection)
            found = connection.execute(
                queries.select_interrupted(standing, dead, now).limit(_RECOVERY_BATCH)
            )
            return [
                transitions.expire_lease(
                    connection, self._contents, queries.entry_from_row(row), now, settle
                )
                for row in found.all()
            ]

        events = await self._database.write(recover)
        self.notify(*events)
        return bool(events)

    @_shielded
    async def expire_entries(self) -> bool:
        """Give up some entries that are older than `max_age`. Return whether there were any.

        They become failed, or unclear if they are in doubt.
        """
        events = await self._database.write(self._expire_entries)
        self.notify(*events)
        return bool(events)

    def _expire_entries(self, connection: sa.Connection) -> list[OutboxEvent]:
        self._require_same_key(connection)
        now = self._database.now(connection)
        old = (
            entries_table.c.state == EntryState.WAITING,
            entries_table.c.queued_at < now - self.settings.max_age,
        )
        found = connection.execute(queries.select_unlocked(*old).limit(_RECOVERY_BATCH))
        return [
            transitions.expire_entry(connection, self._contents, queries.entry_from_row(row), now)
            for row in found.all()
        ]

    @_shielded
    async def erase_delivered(self) -> bool:
        """Erase a segment of a delivered request that was too large to be erased at once.

        Return whether there was one.
        """
        return await self._database.write(_erase_delivered)

    @_shielded
    async def purge_finished(self) -> int:
        """Delete some entries that finished `retention` seconds ago. Return how many."""
        return await self._database.write(self._purge_finished)

    def _purge_finished(self, connection: sa.Connection) -> int:
        now = self._database.now(connection)
        query = queries.select_purgeable(now - self.settings.retention).limit(_PURGE_BATCH)
        numbers = [row.number for row in connection.execute(query)]
        if numbers:
            transitions.delete_entries(connection, numbers)
        return len(numbers)

    @_shielded
    async def release_disk_space(self) -> bool:
        """Return some unused space to the file system. Return whether any was returned."""
        return await self._database.release_disk_space()

    @_shielded
    async def apply_action(
        self,
        entry_id: str,
        to: EntryState,
        *,
        caller: str | None = None,
        actor: Actor | None = None,
    ) -> OutboxEntry | None:
        """Retry (`WAITING`), cancel or drop. None: there is no such entry (of this caller).

        With `actor` the step is stored as a pending audit record, see `record_pending`. Raises
        `EntryStateError`. Cancelling and dropping erase the request.
        """

        def apply_action(connection: sa.Connection) -> OutboxEntry | None:
            self._database.lock_inserts(connection)
            query = queries.select_entries().where(entries_table.c.id == entry_id).with_for_update()
            row = connection.execute(query).first()
            entry = None if row is None else queries.entry_from_row(row)
            if entry is None or caller not in (None, entry.caller):
                return None
            now = self._database.now(connection)
            changed = transitions.apply_operator_action(connection, entry, to, now)
            if actor is not None:
                step = STEP_OF_ACTION[to]
                transitions.add_pending_records(connection, step, [changed], actor, now)
            return changed

        changed = await self._database.write(apply_action)
        if changed is not None:
            is_audit_pending = actor is not None
            self.notify(OutboxEvent(STEP_OF_ACTION[to], changed, is_audit_pending=is_audit_pending))
        return changed

    async def retry_failed(
        self, cause: str | None = None, actor: Actor | None = None
    ) -> AsyncIterator[OutboxEntry]:
        """Retry, for an operator, all failed entries, of one cause or of any, and yield them.

        With `actor` the steps are stored as by `apply_action`.
        """
        after = 0
        # In the order of the numbers, so that an entry that fails again meanwhile is not retried
        # forever.
        while retried := await self._retry_some(cause, after, actor):
            after = retried[-1].number
            for entry in retried:
                yield entry

    @_shielded
    async def _retry_some(
        self, cause: str | None, after: int, actor: Actor | None
    ) -> Sequence[OutboxEntry]:

        def retry_some(connection: sa.Connection) -> Sequence[OutboxEntry]:
            now = self._database.now(connection)
            retried = transitions.retry_failed(
                connection, now, cause, after, max_entries=_RETRY_BATCH
            )
            if actor is not None:
                transitions.add_pending_records(connection, OutboxStep.RETRIED, retried, actor, now)
            return retried

        retried = await self._database.write(retry_some)
        for entry in retried:
            self.notify(OutboxEvent(OutboxStep.RETRIED, entry, is_audit_pending=actor is not None))
        return retried

    @_shielded
    async def content(self, entry_id: str, actor: Actor | None = None) -> EntryContent | None:
        """Return all of an entry in plain text. None: there is no such entry.

        With `actor` a pending audit record of the access is stored first.
        """

        def reveal(connection: sa.Connection, actor: Actor) -> _SealedEntry | None:
            found = _find_sealed_entry(connection, entry_id, "request", "response")
            if found is not None:
                now = self._database.now(connection)
                transitions.add_pending_records(
                    connection, OutboxStep.REVEALED, [found.entry], actor, now
                )
            return found

        if actor is None:
            found = await self._database.read(_find_sealed_entry, entry_id, "request", "response")
        else:
            found = await self._database.write(reveal, actor)
        if found is None:
            return None
        plain = await self._contents.decrypt(found.contents["request"], found.entry, "request")
        request = None if plain is None else unpack_request(plain)
        content = EntryContent(found.entry, request, await self._decrypt_response(found))
        if actor is not None:
            self.notify(OutboxEvent(OutboxStep.REVEALED, found.entry, is_audit_pending=True))
        return content

    async def reveal(
        self, entry_id: str, actor: Actor, record: RecordPending
    ) -> EntryContent | None:
        """Return all of an entry in plain text, once `record` has recorded that `actor` sees it.

        None: there is no such entry. Raises `NotRecordedError`.
        """
        content = await self.content(entry_id)
        if content is not None:
            entry = content.entry
            seen = PendingAuditRecord(
                OutboxStep.REVEALED, entry.id, entry.caller, actor, self._clock()
            )
            if not await record([seen]):
                raise NotRecordedError(Message("the audit cannot be written"))
            self.notify(OutboxEvent(OutboxStep.REVEALED, entry, is_audit_pending=True))
        return content

    @_shielded
    async def record_pending(self, record: RecordPending) -> int:
        """Have the oldest pending records recorded and deleted. Return how many were deleted.

        Only one process does so at a time. Other writers wait meanwhile, so that `record` must be
        quick. What it cannot record stays pending.
        """
        if not await self._database.read(_has_rows, pending_records_table):
            return 0
        async with self._database.write_transaction() as transaction:
            deleted = await transitions.drain_pending_records(transaction, record, self._recorded)
        self._recorded -= deleted
        return len(deleted)


@dataclass(frozen=True, slots=True)
class _SealedEntry:
    """An entry with the encrypted segments of its request, its response, or both."""

    entry: OutboxEntry
    contents: Mapping[ContentKind, Sequence[bytes]]


def _count_leased(connection: sa.Connection, now: float) -> int:
    return int(connection.execute(queries.count_leased(now)).scalar_one())


def _depth(connection: sa.Connection) -> QueueDepth:
    # Each of these is found by an index, or in the sums: however many entries there are.
    counts = connection.execute(queries.SELECT_COUNTS)
    first_of_each = [
        connection.execute(queries.SELECT_OLDEST, {"state": state}).scalar() for state in BLOCKING
    ]
    return QueueDepth(
        {EntryState(state): count for state, count in counts},
        int(connection.execute(queries.SELECT_TOTAL_USAGE).one().size),
        min((oldest for oldest in first_of_each if oldest is not None), default=None),
        bool(connection.execute(queries.SELECT_IS_DELIVERABLE).scalar_one()),
        connection.execute(queries.SELECT_LAST_END).scalar_one(),
    )


def _find_entry(connection: sa.Connection, entry_id: str) -> OutboxEntry | None:
    """Return one entry by its id."""
    query = queries.select_entries().where(entries_table.c.id == entry_id)
    row = connection.execute(query).first()
    return None if row is None else queries.entry_from_row(row)


def _find_sealed_entry(
    connection: sa.Connection, entry_id: str, *kinds: ContentKind
) -> _SealedEntry | None:
    """Return one entry by its id, with its contents of these kinds."""
    entry = _find_entry(connection, entry_id)
    if entry is None:
        return None
    numbers = (entry.number,)
    contents = {kind: load_segments(connection, numbers, kind)[entry.number] for kind in kinds}
    return _SealedEntry(entry, contents)


def _erase_delivered(connection: sa.Connection) -> bool:
    segment = connection.execute(queries.select_unerased()).first()
    if segment is not None:
        key = (segments_table.c.entry, segments_table.c.kind, segments_table.c.place)
        condition = sa.tuple_(*key) == sa.tuple_(*segment)
        connection.execute(sa.delete(segments_table).where(condition))
    return segment is not None


def _stored_meta(connection: sa.Connection) -> dict[str, str]:
    return {row.name: row.value for row in connection.execute(_SELECT_META)}


def _has_rows(connection: sa.Connection, table: sa.Table) -> bool:
    return _has(connection, sa.select(sa.exists().select_from(table)))


def _has(connection: sa.Connection, query: sa.Select[Any]) -> bool:
    return bool(connection.execute(query).scalar_one())


def _blocking_digests(connection: sa.Connection, digests: Sequence[bytes]) -> frozenset[bytes]:
    found = connection.execute(queries.SELECT_BLOCKING_KEYS, {"digests": digests})
    return frozenset(found.scalars())


def _rows(connection: sa.Connection, query: sa.Select[Any]) -> Sequence[Any]:
    return connection.execute(query).all()


def _execute(connection: sa.Connection, change: sa.Executable) -> None:
    connection.execute(change)
