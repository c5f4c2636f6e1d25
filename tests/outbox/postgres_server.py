"""A PostgreSQL server for the tests, in a temporary directory, reached by a Unix socket."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

MISSING = "PostgreSQL is missing: make test-tools"
# The server refuses to run as root; the package creates this user.
USER = "postgres"


def programs() -> Path | None:
    """Return the directory of initdb and pg_ctl, None without them.

    Debian keeps them out of PATH.
    """
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).parent


_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


class PostgresServer:
    """A server that may be killed, stopped and started again at the same address."""

    def __init__(self, bin_directory: Path, directory: Path) -> None:
        self._bin = bin_directory
        self.directory = directory
        self.data = directory / "data"
        self._as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        options = ("--username", "outbox", "--auth", "trust", "--no-sync", "--encoding", "UTF8")
        self._run("initdb", "--pgdata", str(self.data), *options)
        with (self.data / "postgresql.conf").open("a") as file:
            file.write(
                f"listen_addresses = ''\nunix_socket_directories = '{directory}'\n"
                "fsync = off\nmax_connections = 100\nshared_buffers = 16MB\n"
            )

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://outbox@/{database}?host={self.directory}"

    def start(self) -> None:
        log = str(self.directory / "log")
        self._run("pg_ctl", "--pgdata", str(self.data), "--log", log, "--wait", "start")

    def stop(self) -> None:
        """End the server at once, as a crash does."""
        self._run("pg_ctl", "--pgdata", str(self.data), "--mode", "immediate", "--wait", "stop")

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        """Return a connection for inspecting the data."""
        return await asyncpg.connect(
            host=str(self.directory), user="outbox", database=database, timeout=60
        )

    async def fresh_database(self, name: str) -> str:
        """Empty a database, creating it at first use, and end its connections. Return its URL."""
        try:
            connection = await self.connect(name)
        except asyncpg.InvalidCatalogNameError:
            connection = await self.connect()
            await connection.execute(f'CREATE DATABASE "{name}"')
        else:
            await connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            tables = await connection.fetch(_TABLES)
            for (table,) in tables:
                await connection.execute(f'TRUNCATE "{table}" CASCADE')
        await connection.close()
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, str(self._bin / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )


def postgres_server() -> Iterator[PostgresServer]:
    """Yield a running server and stop it at the end; skips without the program."""
    bin_directory = programs()
    if bin_directory is None:
        pytest.skip(MISSING)
    # Other users cannot enter pytest's own directories.
    directory = Path(tempfile.mkdtemp(prefix="dhp-pg-"))
    if os.geteuid() == 0:
        shutil.chown(directory, USER)
    server = PostgresServer(bin_directory, directory)
    try:
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
