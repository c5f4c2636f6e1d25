"""Exchanges to record, pipes to write to, and files that cannot grow."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable, Iterator

import pytest

from gateway.audit.audit_trail import FLUSH_DELAY
from tests.telemetry.conftest import full_device, make_exchange, pipe

__all__ = ["full_device", "make_exchange", "pipe"]

# Seconds. Writers end at once; only one that never ends takes that long.
PATIENCE = 60.0


async def handed_over() -> None:
    """Return when the writer has what was recorded: the loop's timer for that ends sooner."""
    await asyncio.sleep(2 * FLUSH_DELAY)


@pytest.fixture
def file_size_limit() -> Iterator[Callable[[int | None], None]]:
    """Sets how large a file this process may write: the write that crosses it is cut short.

    To be lifted (None) within the test: before teardown pytest writes to its own, larger log.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        soft = before[0] if size is None else size
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, before[1]))

    yield limit
    limit(None)
