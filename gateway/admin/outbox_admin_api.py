"""What the outbox page shows of an outbox, and what operators decide on it, as plain data.

The module imports `gateway.outbox`, unlike `outbox_routes`, whose routes exist without an outbox.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

from gateway.admin.outbox_page import OutboxPageError
from gateway.outbox.entry import (
    BLOCKING,
    Actor,
    EntryState,
    RecordPending,
    content_view,
    entry_view,
    format_time,
)
from gateway.outbox.store.store_types import EntryStateError, NotRecordedError, OutboxError

if TYPE_CHECKING:
    from gateway.outbox.store.outbox_store import OutboxStore

OutboxFacts = dict[str, Any]
_Found = TypeVar("_Found")

_PAGE: Final = 100
# Characters of a body that are shown in clear: a complete body may be too large for a browser.
_MAX_BODY_CHARACTERS: Final = 256 * 1024
_CHANNEL: Final = "page"


class OutboxAdminApi:
    """The outbox for its page, with up to `page` entries in a list.

    `record` writes audit records of what an operator has seen, and returns whether they are
    written. It is None where there is no audit trail; then no entry can be revealed. All methods
    raise `OutboxPageError`, also where there is no entry of an id. `clock` returns Unix time.
    """

    def __init__(
        self,
        store: OutboxStore,
        record: RecordPending | None,
        *,
        page: int = _PAGE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._page_size = page
        self._store = store
        self._record = record
        self._clock = clock

    async def entries(
        self, *, state: str | None, cause: str | None, caller: str | None, after: int
    ) -> OutboxFacts:
        """Return all `groups`, a page of `entries`, and `next` for `after`, None at the end.

        None as `state`, `cause` or `caller` means any.
        """
        with _page_errors():
            groups = await self._store.undelivered_groups()
            found = await self._store.entries(
                states=tuple(BLOCKING) if state is None else [EntryState(state)],
                cause=cause,
                caller=caller,
                after=after,
                limit=self._page_size + 1,
            )
        page = found[: self._page_size]
        return {
            "at": format_time(self._clock()),
            "groups": [{**asdict(group), "oldest": format_time(group.oldest)} for group in groups],
            "entries": [entry_view(entry) for entry in page],
            "next": page[-1].number if len(found) > self._page_size else None,
        }

    async def entry(self, entry_id: str) -> OutboxFacts:
        """Return an entry with patient data masked."""
        with _page_errors():
            return content_view(_existing(await self._store.content(entry_id)), reveal=False)

    async def reveal(self, entry_id: str, operator: str) -> OutboxFacts:
        """Return an entry in clear, once the audit has a record of that."""
        actor = self._actor(operator)
        if actor is None or self._record is None:
            raise OutboxPageError(HTTPStatus.NOT_FOUND, "missing")
        with _page_errors():
            content = await self._store.reveal(entry_id, actor, self._record)
            return _truncate_body(content_view(_existing(content), reveal=True))

    async def retry(self, entry_id: str, operator: str) -> None:
        """Send an entry once more."""
        with _page_errors():
            _existing(
                await self._store.apply_action(
                    entry_id, EntryState.WAITING, actor=self._actor(operator)
                )
            )

    async def retry_failed(self, cause: str, operator: str) -> int:
        """Send all failed entries of a cause once more. Return how many."""
        with _page_errors():
            moved = self._store.retry_failed(cause, self._actor(operator))
            return sum([1 async for _ in moved])

    async def drop(self, entry_id: str, operator: str, reason: str) -> None:
        """Give an entry up."""
        with _page_errors():
            _existing(
                await self._store.apply_action(
                    entry_id, EntryState.DROPPED, actor=self._actor(operator, reason)
                )
            )

    def _actor(self, operator: str, reason: str = "") -> Actor | None:
        return None if self._record is None else Actor(_CHANNEL, operator, reason)


@contextlib.contextmanager
def _page_errors() -> Iterator[None]:
    try:
        yield
    except NotRecordedError:
        raise OutboxPageError(HTTPStatus.SERVICE_UNAVAILABLE, "unrecorded") from None
    except EntryStateError:
        raise OutboxPageError(HTTPStatus.CONFLICT, "not-possible") from None
    except OutboxError:
        raise OutboxPageError(HTTPStatus.SERVICE_UNAVAILABLE, "away") from None


def _existing(found: _Found | None) -> _Found:
    if found is None:
        raise OutboxPageError(HTTPStatus.NOT_FOUND, "missing")
    return found


def _truncate_body(document: OutboxFacts) -> OutboxFacts:
    for part in ("request", "answer"):
        content = document[part]
        if content is not None and len(content["body"]) > _MAX_BODY_CHARACTERS:
            content["body_bytes"] = len(content["body"].encode())
            content["body"] = content["body"][:_MAX_BODY_CHARACTERS]
    return document
