"""A PostgreSQL server of the tests' own, in a directory of its own, reached by a Unix socket."""

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
# The server refuses to run as root; the package brings this user.
USER = "postgres"


def programs() -> Path | None:
    """Where initdb and its like are; Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if found:
        return found[-1].parent
    on_path = shutil.which("postgres")
    return None if on_path is None else Path(on_path).parent


class PostgresServer:
    """May be killed, stopped and started again at the same address."""

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
        """For `outbox.url`."""
        return f"postgresql://outbox@/{database}?host={self.directory}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        log = str(self.directory / "log")
        self._run("pg_ctl", "--pgdata", str(self.data), "--log", log, "--wait", "start")

    def stop(self) -> None:
        """End it at once, as a crash does."""
        self._run("pg_ctl", "--pgdata", str(self.data), "--mode", "immediate", "--wait", "stop")

    async def connect(self, database: str = "postgres") -> asyncpg.Connection:
        """A connection for looking at what is kept."""
        return await asyncpg.connect(
            host=str(self.directory), user="outbox", database=database, timeout=10
        )

    async def fresh_database(self, name: str) -> str:
        """The URL of an empty database, which nobody uses any more that did; made once."""
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
            await connection.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        await connection.close()
        return self.url(name)

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, str(self._bin / program), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
            timeout=60,
        )


def postgres_server() -> Iterator[PostgresServer]:
    """A running server, ended at the end; skips without the program."""
    bin_directory = programs()
    if bin_directory is None:
        pytest.skip(MISSING)
    # pytest's own directories cannot be entered by others.
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
