"""What an earlier version has stored is opened, verified and used by this one.

The folders beside this module were written by `record.py` in a checkout of the version that they
are named after.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from gateway.login.redis_session_store import RedisSessionStore
from gateway.oauth.redis_token_store import RedisTokenStore
from gateway.secret import Secret
from tests.doubles.command import dhp
from tests.doubles.platform import Platform
from tests.doubles.sections import gateway_settings
from tests.outbox.path.conftest import opening, outbox_in
from tests.outbox.path.harness import OutboxSetup, observation
from tests.store.redis_server import RedisServer, redis_server
from tests.stored.record import ENCRYPTION_KEY, MARK, SESSION_KEY, SIGN_IN_KEY, TOKEN_KEY

FOLDERS = sorted(Path(__file__).parent.glob("v*"))
# Seconds: the entries were queued in the year in which they were recorded.
CENTURY = 100 * 365 * 86400.0
LIMITS = {"max_age": CENTURY, "retention": CENTURY}


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def stored(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


class TestOutbox:
    """A database of the outbox."""

    @pytest.fixture
    async def setup(
        self, stored: Path, tmp_path: Path, platform: Platform
    ) -> AsyncIterator[OutboxSetup]:
        shutil.copy(stored / "outbox.db", tmp_path)
        async with opening(platform, tmp_path, outbox=LIMITS, audit={"sink": "off"}) as made:
            yield made

    @pytest.fixture
    def location(self, stored: Path) -> dict[str, str]:
        ids = json.loads((stored / "outbox.json").read_text())
        return {name: f"/_outbox/{entry_id}" for name, entry_id in ids.items()}

    async def test_waiting_writes_are_delivered_as_they_were_sent(
        self, setup: OutboxSetup, location: dict[str, str]
    ) -> None:
        for name in ("waiting", "long", "deletion"):
            reply = await setup.final_response(location[name])
            assert reply.json["type"] == "batch-response"
        seen = {(each.method, each.target): each for each in setup.platform.requests}
        assert {key[0] for key in seen if "Observation/6" in key[1]} == {"DELETE"}
        sent = next(each for (_, target), each in seen.items() if target.endswith("Observation/4"))
        assert sent.body == observation(4, 4)
        basic = next(each for (_, target), each in seen.items() if target.endswith("Basic/5"))
        assert json.loads(basic.body)["code"]["text"] == "x" * 3000

    async def test_the_outcomes_of_earlier_writes_can_be_asked_for(
        self, setup: OutboxSetup, location: dict[str, str]
    ) -> None:
        (delivered,) = (await setup.final_response(location["delivered"])).json["entry"]
        assert delivered["response"]["status"].startswith("200")
        (failed,) = (await setup.final_response(location["failed"])).json["entry"]
        assert failed["response"]["status"].startswith("422")
        unclear = await setup.final_response(location["unclear"])
        assert "outcome-unknown" in unclear.body.decode() or "unclear" in unclear.body.decode()

    async def test_an_operator_decides_on_an_unclear_write(
        self, setup: OutboxSetup, location: dict[str, str], stored: Path, tmp_path: Path
    ) -> None:
        sections = {"outbox": outbox_in(tmp_path) | LIMITS, "audit": {"sink": "off"}}
        settings = gateway_settings(setup.platform.url, setup.sso.token_url, **sections)
        config = tmp_path / "settings.yaml"
        config.write_text(json.dumps(settings))
        entry_id = location["unclear"].rpartition("/")[2]

        async def outbox(*arguments: str) -> str:
            done = await dhp("outbox", *arguments, "--config", config, folder=tmp_path)
            assert done.code == 0, done.err
            return done.out

        shown = await outbox("show", entry_id, "--reveal")
        assert "upstream-failed" in shown
        assert "Patient/3" in shown
        await outbox("drop", entry_id)
        await setup.final_response(location["behind"])
        assert ("PUT", f"{setup.platform.base_path}/Observation/3") in setup.writes()


def _copied_audit(stored: Path, folder: Path) -> list[Path]:
    """The audit files, the oldest first; beside them the file that tells where the chain ends."""
    for file in stored.glob("*audit.jsonl*"):
        shutil.copy(file, folder)
    return [*sorted(folder.glob("audit.jsonl.*")), folder / "audit.jsonl"]


async def test_an_audit_chain_is_verified_and_continued(
    stored: Path, tmp_path: Path, platform: Platform
) -> None:
    files = _copied_audit(stored, tmp_path)
    assert len(files) == 2
    before = await dhp("audit", "verify", *files)
    assert before.code == 0, before.out + before.err
    audit = {"sink": "file", "path": str(tmp_path / "audit.jsonl")}
    recorded = (tmp_path / "audit.jsonl").read_bytes()
    async with opening(platform, tmp_path, audit=audit) as setup:
        assert (await setup.ask("GET", "/Patient/1")).status == 200
    after = await dhp("audit", "verify", *files)
    assert after.code == 0, after.out + after.err
    continued = (tmp_path / "audit.jsonl").read_bytes()
    assert continued.startswith(recorded)
    assert continued != recorded


class TestRedis:
    """Tokens and sessions of replicas."""

    @pytest.fixture
    def server(self, tmp_path: Path) -> Iterator[RedisServer]:
        yield from redis_server(tmp_path)

    @pytest.fixture(params=["plain", "keyed"])
    async def client(
        self, request: pytest.FixtureRequest, stored: Path, server: RedisServer
    ) -> AsyncIterator[tuple[Redis, Secret | None]]:
        """A client of a server that holds what was stored, and the encryption key."""
        values = json.loads((stored / "redis.json").read_text())[request.param]
        async with Redis(host="127.0.0.1", port=server.port, protocol=2) as made:
            for key, value in values.items():
                await _restore(made, key, value)
            yield made, ENCRYPTION_KEY if request.param == "keyed" else None

    async def test_a_token_is_used(self, client: tuple[Redis, Secret | None]) -> None:
        token = await RedisTokenStore(client[0], encryption_key=client[1]).get(TOKEN_KEY)
        assert token is not None
        assert (token.reveal(), token.lifetime, token.scope) == ("planted-token", 3600, "a b")

    async def test_a_session_goes_on(self, client: tuple[Redis, Secret | None]) -> None:
        sessions = RedisSessionStore(client[0], encryption_key=client[1])
        session = await sessions.get(SESSION_KEY)
        assert session is not None
        assert (session.user, session.signed_in_user.name) == ("dr.karimova", "Dr. Karimova")
        assert (session.identity, session.token.reveal()) == (
            "planted-identity",
            "planted-user-token",
        )
        assert session.renewal.refresh_token is not None
        assert session.renewal.refresh_token.reveal() == "planted-refresh-token"
        assert session.renewal.cookies["sid"].reveal() == "planted-cookie"
        assert await sessions.delete_by_mark(MARK) == 1
        assert await sessions.get(SESSION_KEY) is None

    async def test_a_sign_in_is_finished(self, client: tuple[Redis, Secret | None]) -> None:
        sign_in = await RedisSessionStore(client[0], encryption_key=client[1]).pop_sign_in(
            SIGN_IN_KEY
        )
        assert sign_in is not None
        assert (sign_in.verifier.reveal(), sign_in.nonce) == ("planted-verifier", "nonce")
        assert sign_in.return_to == "/fhir/Patient"


async def _restore(client: Redis, key: str, value: Any) -> None:
    if isinstance(value, dict):
        fields = {name: bytes.fromhex(digits) for name, digits in value.items()}
        await client.hset(key, mapping=fields)
    elif isinstance(value, list):
        await client.sadd(key, *map(bytes.fromhex, value))
    else:
        await client.set(key, bytes.fromhex(value))
    await client.pexpire(key, 3_000_000)
