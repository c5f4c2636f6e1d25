"""Opening the outbox by its settings."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from gateway.config.operations_settings import OutboxSettings
from gateway.errors import StartError
from gateway.outbox.entry import EntryState, OutboxEvent
from gateway.outbox.open_outbox import open_outbox_store
from gateway.outbox.store.sqlite_database import SqliteDatabase
from gateway.outbox.store.store_types import (
    OutboxFullError,
    OutboxUnavailableError,
)
from tests.doubles.certificates import server_context
from tests.doubles.clock import FakeClock
from tests.environments import output_of
from tests.outbox.attempts import claim
from tests.outbox.child import RAW_KEY, settings
from tests.outbox.drafts import draft, write
from tests.outbox.places import Place, PostgresPlace, SqlitePlace

# Whether another process may take the lock by which SQLite tells that a WAL's index is in use
# (`UNIX_SHM_DMS` in its os_unix.c). Who gets it makes the index anew.
TAKE_THE_INDEX = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)
    except BlockingIOError:
        print("in use")
"""


def settings_for(place: Place, **more: object) -> OutboxSettings:
    return settings(place.url).model_copy(update=more)


def output_of_python(program: str, argument: str) -> str:
    return output_of([sys.executable, "-c", program, argument])


async def test_a_file_that_is_no_database_is_rejected(tmp_path: Path) -> None:
    alien = tmp_path / "alien.db"
    alien.write_bytes(b"not a database, but somebody's file" * 100)
    before = alien.read_bytes()
    with pytest.raises(StartError, match=r"outbox\.url: .*alien\.db cannot be opened"):
        async with open_outbox_store(settings_for(SqlitePlace(alien)), RAW_KEY):
            pass
    assert alien.read_bytes() == before
    with pytest.raises(StartError, match=r"nowhere/outbox\.db cannot be opened: no such file"):
        async with open_outbox_store(
            settings_for(SqlitePlace(tmp_path / "nowhere" / "outbox.db")), RAW_KEY
        ):
            pass


async def test_an_unreachable_server_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://outbox:hunter2@/gw?host={tmp_path}"
    with pytest.raises(StartError, match=r"outbox\.url: postgresql://outbox") as raised:
        async with open_outbox_store(settings(url), RAW_KEY):
            pass
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("mode", "name", "is_accepted"),
    [
        ("verify-full", "127.0.0.1", True),
        ("verify-full", "elsewhere.test", False),
        ("verify-ca", "elsewhere.test", True),
    ],
)
async def test_only_verify_full_requires_the_name_of_the_server(
    tmp_path: Path, mode: str, name: str, *, is_accepted: bool
) -> None:
    """The server speaks TLS, and ends the connection after the first message in it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = server_context(authority, name)
    received = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(8)  # the request for TLS
        writer.write(b"S")
        try:
            await writer.start_tls(context)
            received.set_result(await reader.read(1))
        except OSError:
            received.set_result(b"")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        url = f"postgresql://outbox@127.0.0.1:{port}/gw?sslmode={mode}"
        with pytest.raises(StartError):
            async with open_outbox_store(
                settings(f"{url}&sslrootcert={tmp_path / 'ca.pem'}"), RAW_KEY
            ):
                pass
        assert (await received != b"") is is_accepted


async def test_a_missing_database_is_named(postgres_place: PostgresPlace) -> None:
    url = postgres_place.server.url("nonesuch")
    with pytest.raises(StartError, match=r"nonesuch.*InvalidCatalogName"):
        async with open_outbox_store(settings(url), RAW_KEY):
            pass


async def test_a_full_disk_is_an_error_until_there_is_space(sqlite_place: SqlitePlace) -> None:
    async with open_outbox_store(settings_for(sqlite_place), RAW_KEY) as store:
        kept = await store.enqueue(draft("a"))
        large = replace(draft("b"), request=write("b", body=bytes(8 * 1024 * 1024)))
        size = os.stat(sqlite_place.path).st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, before[1]))
        try:
            with pytest.raises(OutboxFullError, match="the disk is full"):
                await store.enqueue(large)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        later = await store.enqueue(draft("c"))
        assert list(await store.entries()) == [kept, later]


async def test_changes_of_another_process_are_seen(sqlite_place: SqlitePlace) -> None:
    async with (
        open_outbox_store(settings_for(sqlite_place), RAW_KEY) as store,
        open_outbox_store(settings_for(sqlite_place), RAW_KEY) as other,
    ):
        assert store.is_known_empty()
        entry = await other.enqueue(draft("a"))
        assert not store.is_known_empty()
        assert await store.is_blocked("lis", ["Observation/a"])
        await other.apply_action(entry.id, EntryState.DROPPED)
        assert store.is_known_empty()
        assert not await store.is_blocked("lis", ["Observation/a"])


async def test_a_file_used_by_another_gateway_is_not_used(tmp_path: Path) -> None:
    place = SqlitePlace(tmp_path / "disk" / "outbox.db")
    async with open_outbox_store(settings_for(place), RAW_KEY, delivers=True) as store:
        with pytest.raises(OutboxUnavailableError):
            await store.prepare()
        place.path.parent.mkdir()
        async with open_outbox_store(settings_for(place), RAW_KEY, delivers=True) as other:
            await other.enqueue(draft("a"))
            for step in (store.prepare(), store.entries(), claim(store)):
                with pytest.raises(OutboxUnavailableError, match="in use by another gateway"):
                    await step
        await store.prepare()
        assert len(await claim(store)) == 1


async def test_waits_for_another_process_that_opens_it_first(sqlite_place: SqlitePlace) -> None:
    other = sqlite3.connect(sqlite_place.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asyncio.get_running_loop().call_later(0.1, other.execute, "ROLLBACK")
    async with open_outbox_store(settings_for(sqlite_place), RAW_KEY) as store:
        assert store.is_known_empty()
    other.close()


async def test_the_busy_timeout_covers_waiting_in_this_process(
    sqlite_place: SqlitePlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = "gateway.outbox.store.sqlite_database"
    clock = FakeClock()
    monkeypatch.setattr(f"{module}.BUSY_TIMEOUT", 60.0)
    database = SqliteDatabase(sqlite_place.path, sqlite_place.wall, monotonic=clock)
    other = sqlite3.connect(sqlite_place.path, isolation_level=None)

    async def write() -> None:
        async with database.write_transaction() as transaction:
            await transaction.run(lambda _: None)

    await write()
    async with database.write_transaction():
        behind = asyncio.create_task(write())
        await asyncio.sleep(0)
        # No other process has the file.
        with monkeypatch.context() as shorter:
            shorter.setattr(f"{module}.BUSY_TIMEOUT", 0.1)
            with pytest.raises(OutboxUnavailableError, match="TimeoutError"):
                await write()
        clock.now += 59.9
    # Before the next waiting task has the lock.
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(OutboxUnavailableError, match="SQLITE_BUSY"):
        await asyncio.wait_for(behind, 30)
    other.close()
    await write()
    await database.close()


async def test_index_stays_in_use_while_the_outbox_is_open(sqlite_place: SqlitePlace) -> None:
    events: list[OutboxEvent] = []
    async with open_outbox_store(settings_for(sqlite_place), RAW_KEY) as store:
        store.observers.append(events.append)
        assert store.is_known_empty()
        entry = await store.enqueue(draft("a"))
        assert not store.is_known_empty()
        assert await store.is_blocked("lis", ["Observation/a"])
        await store.apply_action(entry.id, EntryState.DROPPED)
        assert store.is_known_empty()
        assert output_of_python(TAKE_THE_INDEX, f"{sqlite_place.path}-shm") == "in use\n"


async def test_concurrent_processes_create_the_tables_once(place: Place) -> None:
    async def one(number: int) -> None:
        async with open_outbox_store(settings_for(place), RAW_KEY) as store:
            await store.enqueue(draft(str(number)))

    await asyncio.gather(*(one(number) for number in range(6)))
    async with open_outbox_store(settings_for(place), RAW_KEY) as store:
        assert len(await store.entries()) == 6


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give files to another account")
async def test_a_command_of_root_leaves_the_files_to_the_gateways_account(
    sqlite_place: SqlitePlace,
) -> None:
    sqlite_place.path.touch(0o600)
    for _ in range(2):
        os.chown(sqlite_place.path, 12345, 12345)
        async with open_outbox_store(settings_for(sqlite_place), RAW_KEY) as store:
            await store.enqueue(draft("a"))
            assert owners(sqlite_place) == {"outbox.db": 12345} | {
                f"outbox.db-{name}": 12345 for name in ("shm", "wal")
            }
        assert owners(sqlite_place) == {"outbox.db": 12345}


def owners(place: SqlitePlace) -> dict[str, int]:
    """Return the owners of the files but for the reserve, which may be removed by all that write.

    They need the right to write in the directory for that.
    """
    return {file.name: file.stat().st_uid for file in place.files() if not file.match("*-reserve")}
