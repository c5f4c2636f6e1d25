"""The walks of a token that docs/architecture.md prints, held against token requests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gateway.errors import GatewayError
from tests.doubles import sso as answers
from tests.doubles.walks import of, steps, walk
from tests.oauth.harness import Bench, SharedTokens, bench

pytestmark = pytest.mark.interpreted


@pytest.fixture
async def given() -> AsyncIterator[Bench]:
    """Tokens with a store that replicas share, and without a token."""
    async with bench() as made:
        made.tokens = made.made(store=SharedTokens())["default"]
        yield made


async def test_the_walk_of_a_token(given: Bench) -> None:
    """A request that finds no token takes nine functions in seven files to one, in their order."""
    with steps() as taken:
        await given.obtain()
    printed = walk("The walk of a token")
    assert of(printed, taken) == printed
    assert (len(printed), len({file for _, file in printed})) == (9, 7)


async def test_the_walk_of_a_token_that_the_sso_refuses(given: Bench) -> None:
    """The refusal becomes the request's error on the printed way, in its order."""
    given.sso.respond(answers.oauth_error("invalid_client", 401))
    with steps() as taken, pytest.raises(GatewayError, match="token-refused"):
        await given.obtain()
    printed = walk("The walk of a token that the SSO refuses")
    assert of(printed, taken) == printed
    assert (len(printed), len({file for _, file in printed})) == (8, 6)
