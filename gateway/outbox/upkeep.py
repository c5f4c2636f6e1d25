"""What any process does for the whole outbox from time to time, whoever put the entries in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from gateway.outbox.entry import State
from gateway.outbox.events import Event, Observer, Step
from gateway.outbox.store import Changed, Store


class Upkeep:
    """All raise `OutboxUnavailable`. Durations are seconds."""

    def __init__(self, store: Store, observe: Observer) -> None:
        self._store = store
        self._observe = observe

    async def recover(self, settle: float) -> None:
        """Bring back what processes that ended had in hand."""
        await self._all(lambda: self._store.recover(settle=settle), _after_interruption)

    async def expire(self, max_age: float) -> None:
        """Give up what is too old."""
        await self._all(lambda: self._store.expire(max_age), lambda _: Step.EXPIRED)

    async def purge(self, retention: float) -> None:
        """Forget what was over long ago."""
        while await self._store.purge(retention):
            pass

    async def _all(
        self, change: Callable[[], Awaitable[Sequence[Changed]]], step: Callable[[Changed], Step]
    ) -> None:
        while batch := await change():
            for changed in batch:
                self._observe(Event(step(changed), changed.entry, changed.why))


def _after_interruption(changed: Changed) -> Step:
    return Step.UNCLEAR if changed.entry.state is State.UNCLEAR else Step.DOUBTED
