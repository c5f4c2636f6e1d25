"""The rows of @node-oauth/oauth2-server, and what an application may make of its responses."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.interop.sso.front import MARK, TokenRequest
from tests.interop.sso.node_oauth2 import CHANGED_SECRET, NodeOauth2
from tests.interop.sso.rows import ClientRows
from tests.interop.sso.server import TOKEN_LIFETIME
from tests.interop.sso.stage import Answer, Stage


class TestClients(ClientRows):
    """Clients without users."""

    server = NodeOauth2


# By client id: members of its token responses.
SERVED: dict[str, dict[str, Any]] = {
    "as-the-library-answers": {},
    "expires-in-as-text": {"expires_in": str(TOKEN_LIFETIME)},
    "token-type-in-lower-case": {"token_type": "bearer"},
    "token-type-in-upper-case": {"token_type": "BEARER"},
    "no-token-type": {"token_type": None},
    "scope-as-a-list": {"scope": ["fhir"]},
}
LIFETIME_UNKNOWN: dict[str, dict[str, Any]] = {
    "no-expires-in": {"expires_in": None},
    "expires-in-zero": {"expires_in": 0},
    "expires-in-as-words": {"expires_in": "five seconds"},
}
REFUSED: dict[str, dict[str, Any]] = {
    "token-type-mac": {"token_type": "mac"},
    "token-type-dpop": {"token_type": "DPoP"},
    "token-as-a-list": {"access_token": ["a", "b"]},
    "no-token": {"access_token": None},
}


@dataclass(frozen=True, slots=True)
class Seen:
    """What one client's caller got until the second token was in use, or once."""

    statuses: Counter[int]
    last: Answer
    requests: list[TokenRequest]
    tokens: int
    refused: int
    log: str


@pytest.fixture(scope="module")
def seen(stage: Stage) -> dict[str, Seen]:
    """Return what each client's caller got, all at one gateway and at the same time."""
    assert isinstance(stage.server, NodeOauth2)
    stage.server.changes = {**SERVED, **LIFETIME_UNKNOWN, **REFUSED}
    stage.server.read_again()
    return stage.begin(_observe(stage)).result()


async def _observe(stage: Stage) -> dict[str, Seen]:
    methods = dict.fromkeys((*SERVED, *LIFETIME_UNKNOWN, *REFUSED), "client_secret_post")
    methods["as-the-library-answers"] = "client_secret_basic"
    credentials = {
        client_id: {
            "client_id": client_id,
            "client_secret": CHANGED_SECRET,
            "auth_method": method,
            "extra_params": {MARK: client_id},
        }
        for client_id, method in methods.items()
    }
    gateway = stage.machines("responses", credentials)
    await stage.wait_until_ready(gateway)

    async def call(client_id: str) -> Seen:
        used = stage.platform.tokens.setdefault(client_id, [])

        def has_ended() -> bool:
            return client_id in REFUSED or len(used) > 1

        statuses = await stage.load(gateway, client_id, has_ended)
        last = await stage.read(gateway, client_id)
        refused = sum(each.endswith(f"/{client_id}") for each in stage.platform.refused)
        return Seen(
            statuses, last, stage.front.of(client_id), len(used), refused, gateway.process.stderr
        )

    return dict(zip(methods, await asyncio.gather(*map(call, methods)), strict=True))


def _each(client_ids: Iterable[str]) -> pytest.MarkDecorator:
    rows = [
        pytest.param(each, marks=pytest.mark.row(each.replace("-", " "))) for each in client_ids
    ]
    return pytest.mark.parametrize("client_id", rows)


@pytest.mark.column("token responses", NodeOauth2.name)
class TestResponses:
    """Token responses as applications make them."""

    @pytest.mark.row("a secret that is not decoded in Basic")
    def test_basic(self, seen: dict[str, Seen]) -> None:
        """The secret as RFC 6749 encodes it is refused once, and never sent again."""
        found = seen["as-the-library-answers"]
        assert set(found.statuses) == {200}
        assert [each.status == 200 for each in found.requests][:3] == [False, True, True]
        assert all(each.is_basic for each in found.requests)

    @_each(SERVED)
    def test_served(self, seen: dict[str, Seen], client_id: str) -> None:
        found = seen[client_id]
        assert set(found.statuses) == {200}
        assert found.refused == 0
        assert found.tokens >= 2

    @_each(LIFETIME_UNKNOWN)
    def test_lifetime_unknown(self, seen: dict[str, Seen], client_id: str) -> None:
        found = seen[client_id]
        assert set(found.statuses) == {200}
        assert found.refused == 1
        assert len(found.requests) == found.tokens == 2
        warnings = [each for each in found.log.splitlines() if f"credential {client_id}:" in each]
        assert "sso.default_token_lifetime" in warnings[-1]

    @_each(REFUSED)
    def test_refused(self, seen: dict[str, Seen], client_id: str) -> None:
        found = seen[client_id]
        assert (found.last.status, found.last.reason) == (503, "sso-unavailable")
        assert found.tokens == found.refused == 0
        word = "token_type" if client_id.startswith("token-type") else "access_token"
        assert word in found.last.diagnostics
