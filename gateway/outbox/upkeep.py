"""Maintenance of the whole outbox, which any gateway does, whichever one added the entries."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from gateway.outbox.entry import EntryState
from gateway.outbox.events import OutboxEvent, OutboxObserver, OutboxStep
from gateway.outbox.store import EntryChange, Lease

if TYPE_CHECKING:
    # The database library that it imports is an extra.
    from gateway.outbox.sql_store import SqlStore


class OutboxMaintenance:
    """All methods raise `OutboxUnavailableError`.

    Durations are seconds, `clock` is monotonic. `owner` is the name under which this gateway leases
    entries.
    """

    def __init__(
        self, store: SqlStore, observe: OutboxObserver, clock: Callable[[], float], owner: str
    ) -> None:
        self._store = store
        self._observe = observe
        self._clock = clock
        self._owner = owner
        self._seen: dict[Lease, float] = {}
        self._more = False

    async def recover_leases(self, lease_seconds: float, settle: float) -> None:
        """Recover entries that gateways which ended were sending.

        The store's clock may have been set ahead: a lease must also have stood unrenewed for its
        whole length by the clock of this process. Its owner has stopped by then. Where other
        gateways are kept away, every other owner has ended, and its entries are recovered at once.
        """
        found = await self._store.leases()
        # Read after the query: a lease may have been renewed while this process waited for the
        # result.
        now = self._clock()
        self._seen = {lease: self._seen.get(lease, now) for lease in found}
        dead = {lease.owner for lease in found if self._store.is_exclusive} - {self._owner}
        standing = [
            lease
            for lease, since in self._seen.items()
            if now - since >= lease_seconds or lease.owner in dead
        ]
        if standing:
            await self._apply_all(
                lambda: self._store.recover_leases(standing, settle=settle, dead=dead),
                _step_after_lease_end,
            )

    async def expire_and_purge(self, max_age: float, retention: float) -> bool:
        """Give up entries that are too old, purge some finished ones and release disk space.

        Returns whether there is more to purge or release.
        """
        if not self._more:
            await self._apply_all(
                lambda: self._store.expire_entries(max_age), lambda _: OutboxStep.EXPIRED
            )
        self._more = (
            bool(await self._store.purge_finished(retention))
            or await self._store.release_disk_space()
        )
        return self._more

    async def _apply_all(
        self,
        change: Callable[[], Awaitable[Sequence[EntryChange]]],
        step: Callable[[EntryChange], OutboxStep],
    ) -> None:
        while batch := await change():
            for changed in batch:
                self._observe(OutboxEvent(step(changed), changed.entry, changed.cause))


def _step_after_lease_end(changed: EntryChange) -> OutboxStep:
    return (
        OutboxStep.UNCLEAR
        if changed.entry.state is EntryState.UNCLEAR
        else OutboxStep.BECAME_IN_DOUBT
    )
