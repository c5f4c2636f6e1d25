"""Exchanges to record, pipes to write to, and files that cannot grow."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator

import pytest

from gateway.audit.audit_trail import FLUSH_DELAY
from tests.telemetry.conftest import full_device, make_exchange, pipe

__all__ = ["full_device", "make_exchange", "pipe"]

# Seconds. A writer ends within milliseconds: this limit is reached only by one that never ends.
MAX_WAIT = 60.0


async def handed_over() -> None:
    """Return when the trail has passed its records to the writer, which it does by a timer."""
    await asyncio.sleep(2 * FLUSH_DELAY)


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int | None], None]]:
    """Set the largest file that this process may write: a write beyond it is cut short.

    A test has to lift it (None): before teardown pytest writes to its own, larger log.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        soft = before[0] if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, before[1]))

    yield limit
    limit(None)
