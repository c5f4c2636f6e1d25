"""The walk of a token that docs/architecture.md prints, compared with a token request."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.doubles.walks import of, steps, walk
from tests.oauth.harness import Setup, SharedTokens, make_setup

pytestmark = pytest.mark.interpreted


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    async with make_setup() as made:
        made.tokens = made.made(store=SharedTokens())["default"]
        yield made


async def test_the_walk_of_a_token(setup: Setup) -> None:
    with steps() as taken:
        await setup.obtain()
    printed = walk("The walk of a token")
    assert of(printed, taken) == printed
    assert (len(printed), len({file for _, file in printed})) == (9, 7)
