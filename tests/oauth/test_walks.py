"""The walks of a token that docs/architecture.md prints, held against token requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import GatewayError
from tests.doubles import sso as answers
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


async def test_the_walk_of_a_token_that_the_sso_refuses(setup: Setup) -> None:
    setup.sso.respond(answers.oauth_error("invalid_client", 401))
    with steps() as taken, pytest.raises(GatewayError, match="token-refused"):
        await setup.obtain()
    printed = walk("The walk of a token that the SSO refuses")
    assert of(printed, taken) == printed
    assert (len(printed), len({file for _, file in printed})) == (8, 6)
