"""The store, in a SQL database.

Several processes may share it. An entry that is being sent is leased to one of them; a lease that
is not renewed ends, and the entry is then judged as after an unclear failure. As the store's clock
may be set, whoever has it judged must have seen for itself that it was not renewed.

Every method is atomic and, when it returns, on the disk. All raise `OutboxUnavailableError` when
the place is out of reach. Durations are seconds; `owner` names one process.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

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
from gateway.phrases import Phrase

_ID_BYTES: Final = 16
# So many at a time are judged, or forgotten, so that no transaction takes long.
_RECOVERY_BATCH: Final = 100
_PURGE_BATCH: Final = 200
_RETRY_BATCH: Final = 500
# What the row of an order takes, with its indexes.
_ROW: Final = 256


class SqlStore(SqlQueries):
    """Made by `gateway.outbox.opening`; `prepare` comes first."""

    def __init__(self, database: Database, cipher: ContentCipher) -> None:
        super().__init__(database, EncryptedContents(cipher))
        self._cipher = cipher
        self._meta_values = {"schema": str(VERSION), "key": cipher.check}
        self._recorded: set[int] = set()
        # The time when something was claimed last.
        self._latest = 0.0
        # Whether nothing blocks anything, as far as can be told at once and for sure.
        self.is_known_empty = database.is_known_empty
        # Whether the process of an owner's name has ended, as far as can be told from here.
        self.is_known_dead = database.is_known_dead

    async def close(self) -> None:
        """Let go of the place, after what is under way."""
        await self.shielded_tasks.wait_all()
        await self._database.close()

    @shielded
    async def prepare(self) -> None:
        """Make it ready, at once if it is; before that all else raises `OutboxUnavailableError`.

        Raises `OutboxConfigurationError`.
        """
        async with self._database.write_transaction() as connection:
            await self._database.lock_inserts(connection)
            await connection.run_sync(METADATA.create_all)
            written = await _stored_meta(connection)
            if written == self._meta_values:
                return
            if (schema := written.get("schema", str(VERSION))) not in (
                str(VERSION),
                *UPGRADABLE_VERSIONS,
            ):
                why = Phrase("was written by another version (schema {schema})", schema=schema)
                raise OutboxConfigurationError(why)
            other = written and written.get("key") != self._meta_values["key"]
            if other and await _has_entries(connection):
                raise OutboxConfigurationError(
                    Phrase("holds entries that were encrypted with another key")
                )
            await connection.run_sync(_upgrade_schema)
            await connection.execute(sa.delete(meta_table))
            facts = [{"name": name, "value": value} for name, value in self._meta_values.items()]
            await connection.execute(sa.insert(meta_table), facts)

    @shielded
    async def insert(
        self, draft: NewEntry, limits: OutboxLimits, confirm: Confirm = always_confirm
    ) -> OutboxEntry:
        """Keep a write. Raises `OutboxFullError`.

        `confirm` is asked when the waiting is over and nobody else can put anything in, and again
        at the very end. What it raises is raised here, and nothing is kept.
        """
        entry_id = secrets.token_hex(_ID_BYTES)
        sealed, size = await self._contents.encrypt_request(entry_id, draft)
        marks = self._key_digests(draft.caller, draft.ordering_keys)
        size += _ROW * len(marks)
        async with self._database.write_transaction(adds=True) as connection:
            await self._database.lock_inserts(connection)
            confirm()
            await self._require_same_key(connection)
            used = (await connection.execute(statements.select_usage(draft.caller))).one()
            limits.check(size, QueueUsage(*map(int, used)))
            now = await self._database.now(connection)
            arrival = statements.insert_entry(draft, entry_id, size, now)
            entry = entry_from_row((await connection.execute(arrival)).one())
            blocking = [{"mark": mark, "entry": entry.number} for mark in marks]
            await connection.execute(sa.insert(ordering_keys_table), blocking)
            if draft.ordering_keys == ALL_KEYS:
                own = {"entry": entry.number, "caller": draft.caller}
                await connection.execute(sa.insert(all_keys_table).values(own))
            await connection.execute(
                statements.update_predecessors(entries_table.c.number == entry.number)
            )
            await contents.save_segments(connection, "request", {entry.number: sealed})
            # A slow disk, or a server far away, has let time pass since.
            confirm()
            return entry

    @shielded
    async def is_blocked(self, caller: str, orders: Collection[str]) -> bool:
        """Whether anything of one of these orders, or of everything, is not delivered yet."""
        if orders == ALL_KEYS:
            query = statements.exists_blocking_of_caller(caller)
        else:
            query = statements.exists_blocking(self._key_digests(caller, (*orders, *ALL_KEYS)))
        async with self._database.read_transaction() as connection:
            return bool((await connection.execute(query)).scalar_one())

    def _key_digests(self, caller: str, orders: Collection[str]) -> list[bytes]:
        return [self._cipher.ordering_key_digest(caller, order) for order in orders]

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
        """Write down what attempts came to, and take up to `max_claims` due entries in hand.

        Each of these is leased and counts an attempt, and nothing earlier blocks it. Together they
        have at most `size` bytes, or it is one. `prefer_verifiable`: rather those that do not end
        as unclear when the line breaks. What was delivered counts also when its lease was lost,
        unless somebody has claimed it or decided about it.
        """
        sealed = await self._contents.encrypt_responses(outcomes)
        told: Sequence[bool] = ()
        claimed: Mapping[OutboxEntry, Sequence[bytes]] = {}
        async with self._database.write_transaction() as connection:
            if any(map(sql_attempts.is_delivered, outcomes)):
                await self._database.lock_inserts(connection)
            now = await self._database.now(connection)
            if outcomes:
                told = await sql_attempts.record_outcomes(connection, owner, outcomes, sealed, now)
            if max_claims:
                if not any(told):
                    # What is in hand here keeps others from opening it anew.
                    await self._require_same_key(connection)
                await self._handle_clock_step(connection, now)
                ready = statements.select_ready(now, max_claims, cautious=prefer_verifiable)
                lent = {"owner": owner, "leased_until": now + lease}
                claimed = await sql_attempts.claim_entries(connection, ready, size, lent)
        return StoreStepResult(
            told, [await self._decrypt_claimed(*each) for each in claimed.items()]
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
        """Prolong those leases of this owner that have not ended; the ids that it still has."""
        async with self._database.write_transaction() as connection:
            now = await self._database.now(connection)
            mine = (
                entries_table.c.id.in_(ids),
                entries_table.c.owner == owner,
                entries_table.c.state == EntryState.SENDING,
            )
            # One that has ended may be another's at any moment: it must not come back to life.
            alive = entries_table.c.leased_until > now
            prolonged = (
                sa.update(entries_table).where(*mine, alive).values(leased_until=now + lease)
            )
            held = await connection.execute(prolonged.returning(entries_table.c.id))
            return frozenset(held.scalars())

    @shielded
    async def make_due(self, ids: Collection[str]) -> None:
        """Let these of them that wait be due at once, but for those to be asked about first."""
        if ids:
            async with self._database.write_transaction() as connection:
                await connection.execute(statements.update_due_now(entries_table.c.id.in_(ids)))

    async def _require_same_key(self, connection: AsyncConnection) -> None:
        # Another process may have opened it anew, with a new key, while it was empty.
        if await _stored_meta(connection) != self._meta_values:
            raise OutboxUnavailableError(Phrase("is in use with another key or by another version"))

    @shielded
    async def leases(self) -> Collection[Lease]:
        """All there are, of whichever process, ended or not."""
        async with self._database.read_transaction() as connection:
            return [Lease(*row) for row in await connection.execute(statements.select_leases())]

    @shielded
    async def recover_leases(
        self, standing: Collection[Lease], *, settle: float
    ) -> Sequence[EntryChange]:
        """Judge entries with one of these leases, if it has ended or its owner is dead.

        They are judged by their `recovery`. Those that the platform is to be asked about are due
        after `settle`.
        """
        dead = [owner for owner in {each.owner for each in standing} if self.is_known_dead(owner)]
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
        """Give up what has waited for longer: `failed`, or `unclear` where there is doubt."""
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
        """Forget some of what was delivered, cancelled or dropped so long ago; how many."""
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
        """Give some of the room back to the disk that nothing needs any more; whether it did."""
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
        """Retry (`waiting`), cancel or drop. None: there is no such entry (of this caller).

        With `actor` the step is noted for an audit, see `record_pending`. Raises `EntryStateError`.
        Cancelling and dropping erase the request.
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
            moved = await changes.apply_operator_action(connection, entry, to, now)
            if actor is not None:
                await audit_notes.add_pending_records(
                    connection, STEP_OF_ACTION[to], [moved], actor, now
                )
            return moved

    @shielded
    async def retry_failed(
        self, cause: str | None, *, after: int = 0, actor: Actor | None = None
    ) -> Sequence[OutboxEntry]:
        """Retry the first that have failed, of one cause or of any, with numbers above `after`.

        None are left when it is empty. With `actor` it is noted as by `apply_action`.
        """
        async with self._database.write_transaction() as connection:
            now = await self._database.now(connection)
            moved = await changes.retry_failed(connection, now, cause, after, most=_RETRY_BATCH)
            if actor is not None:
                await audit_notes.add_pending_records(
                    connection, OutboxStep.RETRIED, moved, actor, now
                )
            return moved

    @shielded
    async def content(self, entry_id: str, actor: Actor | None = None) -> EntryContent | None:
        """All of an entry, in clear. None: there is no such entry.

        With `actor` it is noted first who wanted to see it.
        """
        place = (
            self._database.read_transaction()
            if actor is None
            else self._database.write_transaction()
        )
        async with place as connection:
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
        """Have the oldest noted steps recorded, by one process only; how many are forgotten.

        Others wait with their writes, so `record` must be quick. What it cannot stays noted.
        """
        async with self._database.read_transaction() as connection:
            if not await audit_notes.has_pending_records(connection):
                return 0
        async with self._database.write_transaction() as connection:
            taken = await audit_notes.drain_pending_records(connection, record, self._recorded)
        self._recorded -= taken
        return len(taken)


async def _stored_meta(connection: AsyncConnection) -> dict[str, str]:
    return {row.name: row.value for row in await connection.execute(sa.select(meta_table))}


def _upgrade_schema(connection: sa.Connection) -> None:
    """Add to what an older version made; tables that are missing were made before."""
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
