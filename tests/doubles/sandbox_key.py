"""The key with which sandboxes of tests sign: making one takes longer than most tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from gateway.sandbox import server


def one_sandbox_key() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server, "new_key", functools.cache(server.new_key))
        yield
