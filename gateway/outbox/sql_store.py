"""The store, in a SQL database.

Several processes may share it. An entry that is being sent is leased to one of them. A lease that
is not renewed ends, and the entry is then treated as after an attempt of unknown effect. The
store's clock may be set, so that a process that recovers leases must have observed by its own clock
that they were not renewed.

Every method is atomic and, when it returns, its changes are on disk. All raise
`OutboxUnavailableError` when the database cannot be reached. Durations are seconds; `owner` names
one gateway.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.i18n import Message
from gateway.outbox import audit_notes, changes, contents, sql_attempts, statements
from gateway.outbox.contents import EncryptedContents
from gateway.outbox.database import Database
from gateway.outbox.entry import ALL_KEYS, BLOCKING, EntryState, NewEntry, OutboxEntry
from gateway.outbox.events import STEP_OF_ACTION, Actor, OutboxStep, RecordPending
from gateway.outbox.schema import (
    BY_BEHIND,
    BY_CALLER_AND_STATE,
    METADATA,
    UPGRADABLE_VERSIONS,
    VERSION,
    all_keys_table,
    entries_table,
    meta_table,
    ordering_keys_table,
    segments_table,
)
from gateway.outbox.sealing import ContentCipher, unpack_request
from gateway.outbox.shielded import shielded
from gateway.outbox.sql_reading import SqlQueries, find_entry
from gateway.outbox.statements import entry_from_row
from gateway.outbox.store import (
    AttemptOutcome,
    ClaimedEntry,
    Confirm,
    EntryChange,
    EntryContent,
    Lease,
    OutboxConfigurationError,
    OutboxLimits,
    OutboxUnavailableError,
    QueueUsage,
    StoreStepResult,
    always_confirm,
)

_ID_BYTES: Final = 16
# The most entries that one transaction recovers, purges or retries, so that none takes long.
_RECOVERY_BATCH: Final = 100
_PURGE_BATCH: Final = 200
_RETRY_BATCH: Final = 500
# Bytes of the row of an ordering key, with its indexes.
_KEY_ROW_BYTES: Final = 256


class SqlStore(SqlQueries):
    """The store. `gateway.outbox.opening` makes it; `prepare` must be called first."""

    def __init__(self, database: Database, cipher: ContentCipher) -> None:
        super().__init__(database, EncryptedContents(cipher))
        self._cipher = cipher
        self._meta_values = {"schema": str(VERSION), "key": cipher.check}
        self._recorded: set[int] = set()
        # The Unix time of the last claim.
        self._latest = 0.0
        # True if no entry blocks, as far as that is known at once.
        self.is_known_empty = database.is_known_empty

    @property
    def is_exclusive(self) -> bool:
        """Whether other gateways are kept away from the database."""
        return self._database.is_exclusive

    async def close(self) -> None:
        """Close the database after the running methods have ended."""
        await self.shielded_tasks.wait_all()
        await self._database.close()

    @shielded
    async def prepare(self) -> None:
        """Create or upgrade the tables; nothing is written if they are current.

        Before that all other methods raise `OutboxUnavailableError`. Raises
        `OutboxConfigurationError` for another key or an unknown schema version.
        """
        async with self._database.write_transaction() as connection:
            await self._database.lock_inserts(connection)
            await connection.run_sync(METADATA.create_all)
            stored = await _stored_meta(connection)
            if stored == self._meta_values:
                return
            if (schema := stored.get("schema", str(VERSION))) not in (
                str(VERSION),
                *UPGRADABLE_VERSIONS,
            ):
                why = Message("was written by another version (schema {schema})", schema=schema)
                raise OutboxConfigurationError(why)
            has_other_key = stored and stored.get("key") != self._meta_values["key"]
            if has_other_key and await _has_entries(connection):
                raise OutboxConfigurationError(
                    Message("holds entries that were encrypted with another key")
                )
            await connection.run_sync(_upgrade_schema)
            await connection.execute(sa.delete(meta_table))
            facts = [{"name": name, "value": value} for name, value in self._meta_values.items()]
            await connection.execute(sa.insert(meta_table), facts)

    @shielded
    async def insert(
        self, new_entry: NewEntry, limits: OutboxLimits, confirm: Confirm = always_confirm
    ) -> OutboxEntry:
        """Store a write and return its entry. Raises `OutboxFullError`.

        `confirm` is called when the waiting is over and no other process can insert entries, and
        again at the very end. What it raises is raised here, and nothing is stored.
        """
        entry_id = secrets.token_hex(_ID_BYTES)
        sealed, size = await self._contents.encrypt_request(entry_id, new_entry)
        digests = self._key_digests(new_entry.caller, new_entry.ordering_keys)
        size += _KEY_ROW_BYTES * len(digests)
        async with self._database.write_transaction(adds=True) as connection:
            await self._database.lock_inserts(connection)
            confirm()
            await self._require_same_key(connection)
            used = (await connection.execute(statements.select_usage(new_entry.caller))).one()
            limits.check(size, QueueUsage(*map(int, used)))
            now = await self._database.now(connection)
            arrival = statements.insert_entry(new_entry, entry_id, size, now)
            entry = entry_from_row((await connection.execute(arrival)).one())
            blocking = [{"mark": digest, "entry": entry.number} for digest in digests]
            await connection.execute(sa.insert(ordering_keys_table), blocking)
            if new_entry.ordering_keys == ALL_KEYS:
                row = {"entry": entry.number, "caller": new_entry.caller}
                await connection.execute(sa.insert(all_keys_table).values(row))
            await connection.execute(
                statements.update_predecessors(entries_table.c.number == entry.number)
            )
            await contents.save_segments(connection, "request", {entry.number: sealed})
            # A slow disk or a distant server may have taken time since the first call.
            confirm()
            return entry

    @shielded
    async def is_blocked(self, caller: str, ordering_keys: Collection[str]) -> bool:
        """Return whether an undelivered entry has one of these ordering keys, or ALL_KEYS."""
        if ordering_keys == ALL_KEYS:
            query = statements.exists_blocking_of_caller(caller)
        else:
            query = statements.exists_blocking(
                self._key_digests(caller, (*ordering_keys, *ALL_KEYS))
            )
        async with self._database.read_transaction() as connection:
            return bool((await connection.execute(query)).scalar_one())

    def _key_digests(self, caller: str, ordering_keys: Collection[str]) -> list[bytes]:
        return [self._cipher.ordering_key_digest(caller, key) for key in ordering_keys]

    @shielded
    async def record_and_claim(
        self,
        owner: str,
        outcomes: Sequence[AttemptOutcome],
        *,
        max_claims: int,
        size: int = 0,
        lease: float = 0.0,
        prefer_verifiable: bool = False,
    ) -> StoreStepResult:
        """Record the outcomes of attempts, and claim up to `max_claims` due entries.

        Each claimed entry is leased for `lease` seconds, counts one more attempt, and is not
        blocked. Together they have at most `size` bytes, or it is one. With `prefer_verifiable`
        entries that would not end as unclear in an outage come first. A delivery counts also when
        its lease was lost, unless the entry was claimed again or an operator has decided about it.
        """
        sealed = await self._contents.encrypt_responses(outcomes)
        recorded: Sequence[bool] = ()
        claimed: Mapping[OutboxEntry, Sequence[bytes]] = {}
        async with self._database.write_transaction() as connection:
            if any(map(sql_attempts.is_delivered, outcomes)):
                await self._database.lock_inserts(connection)
            now = await self._database.now(connection)
            if outcomes:
                recorded = await sql_attempts.record_outcomes(
                    connection, owner, outcomes, sealed, now
                )
            if max_claims:
                if not any(recorded):
                    # Entries claimed here prevent another process from preparing the store with
                    # another key.
                    await self._require_same_key(connection)
                await self._handle_clock_step(connection, now)
                ready = statements.select_ready(
                    now, max_claims, prefer_verifiable=prefer_verifiable
                )
                lease_values = {"owner": owner, "leased_until": now + lease}
                claimed = await sql_attempts.claim_entries(connection, ready, size, lease_values)
        return StoreStepResult(
            recorded, [await self._decrypt_claimed(*item) for item in claimed.items()]
        )

    async def _handle_clock_step(self, connection: AsyncConnection, now: float) -> None:
        await changes.reset_delays_after_clock_step(connection, self._latest, now)
        self._latest = now

    async def _decrypt_claimed(self, entry: OutboxEntry, sealed: Sequence[bytes]) -> ClaimedEntry:
        try:
            plain = await self._contents.decrypt(sealed, entry, "request")
        except OutboxConfigurationError:
            plain = None
        return ClaimedEntry(entry, None if plain is None else unpack_request(plain))

    @shielded
    async def renew(self, owner: str, ids: Collection[str], *, lease: float) -> Collection[str]:
        """Renew the leases of this owner that have not ended. Return the ids it still holds."""
        async with self._database.write_transaction() as connection:
            now = await self._database.now(connection)
            conditions = (
                entries_table.c.id.in_(ids),
                entries_table.c.owner == owner,
                entries_table.c.state == EntryState.SENDING,
            )
            # A lease that has ended may be taken by another process at any moment and must not be
            # revived.
            alive = entries_table.c.leased_until > now
            prolonged = (
                sa.update(entries_table).where(*conditions, alive).values(leased_until=now + lease)
            )
            held = await connection.execute(prolonged.returning(entries_table.c.id))
            return frozenset(held.scalars())

    @shielded
    async def make_due(self, ids: Collection[str]) -> None:
        """Make those of these entries that wait due at once, except entries to be verified."""
        if ids:
            async with self._database.write_transaction() as connection:
                await connection.execute(statements.update_due_now(entries_table.c.id.in_(ids)))

    async def _require_same_key(self, connection: AsyncConnection) -> None:
        # Another process may have prepared the store with a new key while it was empty.
        if await _stored_meta(connection) != self._meta_values:
            raise OutboxUnavailableError(
                Message("is in use with another key or by another version")
            )

    @shielded
    async def leases(self) -> Collection[Lease]:
        """Return all leases, of any process, ended or not."""
        async with self._database.read_transaction() as connection:
            return [Lease(*row) for row in await connection.execute(statements.select_leases())]

    @shielded
    async def recover_leases(
        self, standing: Collection[Lease], *, settle: float, dead: Collection[str] = ()
    ) -> Sequence[EntryChange]:
        """Recover entries with one of these leases that has ended or whose owner is `dead`.

        Their `recovery` decides what follows. Entries to be verified are due after `settle`
        seconds.
        """
        async with self._database.write_transaction() as connection:
            await self._require_same_key(connection)
            now = await self._database.now(connection)
            found = await connection.execute(
                statements.select_interrupted(standing, dead, now).limit(_RECOVERY_BATCH)
            )
            return [
                await changes.expire_lease(
                    connection, self._contents, entry_from_row(row), now, settle
                )
                for row in found.all()
            ]

    @shielded
    async def expire_entries(self, max_age: float) -> Sequence[EntryChange]:
        """Give up some entries that have waited longer than `max_age`.

        They become failed, or unclear if they are in doubt.
        """
        async with self._database.write_transaction() as connection:
            await self._require_same_key(connection)
            now = await self._database.now(connection)
            old = (
                entries_table.c.state == EntryState.WAITING,
                entries_table.c.queued_at < now - max_age,
            )
            found = (
                await connection.execute(statements.select_unlocked(*old).limit(_RECOVERY_BATCH))
            ).all()
            if not found:
                await changes.unblock_orphaned(connection)
            return [
                await changes.expire_entry(connection, self._contents, entry_from_row(row), now)
                for row in found
            ]

    @shielded
    async def purge_finished(self, retention: float) -> int:
        """Delete some entries that finished more than `retention` seconds ago. Return how many."""
        async with self._database.write_transaction() as connection:
            now = await self._database.now(connection)
            query = statements.select_purgeable(now - retention).limit(_PURGE_BATCH)
            numbers = [row.number for row in await connection.execute(query)]
            if numbers:
                await connection.execute(
                    sa.delete(segments_table).where(segments_table.c.entry.in_(numbers))
                )
                await connection.execute(
                    sa.delete(entries_table).where(entries_table.c.number.in_(numbers))
                )
            return len(numbers)

    @shielded
    async def release_disk_space(self) -> bool:
        """Return some unused space to the file system. Return whether any was returned."""
        return await self._database.release_disk_space()

    @shielded
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
        async with self._database.write_transaction() as connection:
            await self._database.lock_inserts(connection)
            query = (
                statements.select_entries().where(entries_table.c.id == entry_id).with_for_update()
            )
            row = (await connection.execute(query)).first()
            entry = None if row is None else entry_from_row(row)
            if entry is None or caller not in (None, entry.caller):
                return None
            now = await self._database.now(connection)
            changed = await changes.apply_operator_action(connection, entry, to, now)
            if actor is not None:
                await audit_notes.add_pending_records(
                    connection, STEP_OF_ACTION[to], [changed], actor, now
                )
            return changed

    @shielded
    async def retry_failed(
        self, cause: str | None, *, after: int = 0, actor: Actor | None = None
    ) -> Sequence[OutboxEntry]:
        """Retry the first failed entries, of one cause or of any, with numbers above `after`.

        An empty result means that none are left. With `actor` the steps are stored as by
        `apply_action`.
        """
        async with self._database.write_transaction() as connection:
            now = await self._database.now(connection)
            retried = await changes.retry_failed(
                connection, now, cause, after, max_entries=_RETRY_BATCH
            )
            if actor is not None:
                await audit_notes.add_pending_records(
                    connection, OutboxStep.RETRIED, retried, actor, now
                )
            return retried

    @shielded
    async def content(self, entry_id: str, actor: Actor | None = None) -> EntryContent | None:
        """Return all of an entry in plain text. None: there is no such entry.

        With `actor` a pending audit record of the access is stored first.
        """
        transaction = (
            self._database.read_transaction()
            if actor is None
            else self._database.write_transaction()
        )
        async with transaction as connection:
            entry = await find_entry(connection, entry_id)
            if entry is None:
                return None
            if actor is not None:
                now = await self._database.now(connection)
                await audit_notes.add_pending_records(
                    connection, OutboxStep.REVEALED, [entry], actor, now
                )
            request = await self._request(connection, entry)
            return EntryContent(entry, request, await self._response(connection, entry))

    @shielded
    async def record_pending(self, record: RecordPending) -> int:
        """Have the oldest pending records recorded and deleted. Return how many were deleted.

        Only one process does so at a time. Other writers wait meanwhile, so that `record` must be
        quick. What it cannot record stays pending.
        """
        async with self._database.read_transaction() as connection:
            if not await audit_notes.has_pending_records(connection):
                return 0
        async with self._database.write_transaction() as connection:
            deleted = await audit_notes.drain_pending_records(connection, record, self._recorded)
        self._recorded -= deleted
        return len(deleted)


async def _stored_meta(connection: AsyncConnection) -> dict[str, str]:
    return {row.name: row.value for row in await connection.execute(sa.select(meta_table))}


def _upgrade_schema(connection: sa.Connection) -> None:
    """Add columns and indexes to the tables of an older version. Missing tables exist by now."""
    columns = sa.inspect(connection).get_columns(entries_table.name)
    if all(column["name"] != entries_table.c.behind.name for column in columns):
        column = sa.schema.CreateColumn(entries_table.c.behind).compile(dialect=connection.dialect)
        connection.exec_driver_sql(f"ALTER TABLE {entries_table.name} ADD COLUMN {column}")
    for index in (BY_CALLER_AND_STATE, BY_BEHIND):
        index.create(connection, checkfirst=True)
    connection.execute(statements.update_predecessors(entries_table.c.state.in_(BLOCKING)))


async def _has_entries(connection: AsyncConnection) -> bool:
    query = sa.select(sa.exists().select_from(entries_table))
    return bool((await connection.execute(query)).scalar_one())
