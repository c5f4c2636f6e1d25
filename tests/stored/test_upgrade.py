"""An upgrade and its rollback: two versions use the same files one after the other.

The later version is a wheel that is built from these sources with another number.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from packaging.version import Version

from gateway import __version__
from tests.audit.chained import records
from tests.doubles.command import dhp
from tests.doubles.platform import Platform
from tests.doubles.processes import GATEWAY_COMMAND, start
from tests.doubles.relay import Relay
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.outbox.path.conftest import outbox_in
from tests.outbox.path.harness import observation
from tests.outbox.replica import Replica

ROOT = Path(__file__).parents[2]
SOURCES = ("gateway", "deploy/build_hook.py", "pyproject.toml", "README.md", "LICENSE", "NOTICE")
QUEUE = {"Content-Type": "application/fhir+json", "Prefer": "respond-async"}

MakeReplica = Callable[[str], Replica]


@pytest.fixture(scope="module")
def later() -> str:
    now = Version(__version__)
    return f"{now.major}.{now.minor}.{now.micro + 1}"


@pytest.fixture(scope="module")
def programs(later: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Sequence[Any]]:
    folder = tmp_path_factory.mktemp("later")
    sources = folder / "sources"
    for name in SOURCES:
        place = sources / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            # Other tests are writing there.
            shutil.copytree(ROOT / name, place, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, place)
    module = sources / "gateway/__init__.py"
    named = re.sub(r'(?<=__version__ = ")[^"]*', later, module.read_text("utf-8"))
    module.write_text(named, "utf-8")
    build = ("-m", "hatchling", "build", "--target", "wheel", "--directory", folder)
    subprocess.run([sys.executable, *build], cwd=sources, check=True, capture_output=True)
    with zipfile.ZipFile(folder / f"dhp_gateway-{later}-py3-none-any.whl") as wheel:
        wheel.extractall(folder / "installed")
    path = f"PYTHONPATH={folder / 'installed'}"
    return {
        __version__: [GATEWAY_COMMAND],
        later: ["env", path, sys.executable, "-P", "-m", "gateway"],
    }


@pytest.fixture
async def relay(platform: Platform) -> AsyncIterator[Relay]:
    async with Relay(platform.port) as made:
        yield made


@pytest.fixture
def replica(
    relay: Relay,
    platform: Platform,
    sso: Sso,
    programs: dict[str, Sequence[Any]],
    tmp_path: Path,
) -> MakeReplica:
    """Return a function that makes a gateway of a version; all have the same files."""
    settings = gateway_settings(
        f"http://127.0.0.1:{relay.port}{platform.base_path}",
        sso.token_url,
        outbox=outbox_in(tmp_path),
        audit={"sink": "file", "path": str(tmp_path / "audit.jsonl")},
        retries={"max_attempts": 1},
    )
    return lambda version: Replica(version, tmp_path, settings, programs[version])


async def running_version(gateway: Replica) -> str:
    """Return the version that the metrics show."""
    admin = f"http://127.0.0.1:{gateway.ports[1]}"
    async with aiohttp.request("GET", f"{admin}/metrics") as response:
        found = re.search(r'build_info\{.*version="([^"]+)"', await response.text())
    assert found is not None
    return found[1]


async def queue(gateway: Replica, number: int) -> str:
    """Queue a write; all are about one patient. Return its status URL's path."""
    url = f"{gateway.url}/Observation/{number}"
    body = observation(1, number)
    async with aiohttp.request("PUT", url, data=body, headers=QUEUE) as response:
        assert response.status == 202, await response.text()
        return response.headers["Content-Location"].rpartition("/fhir")[2]


async def status(gateway: Replica, path: str) -> int:
    """Return the status of a queued write: 202 while it waits."""
    async with aiohttp.request("GET", f"{gateway.url}{path}") as response:
        return response.status


async def test_queued_writes_survive_an_upgrade_and_its_rollback(
    replica: MakeReplica, relay: Relay, platform: Platform, later: str, tmp_path: Path
) -> None:
    """Each is delivered once, in order; one chain of audit records has all three starts."""
    relay.cut()
    order = [__version__, later, __version__]
    paths: list[str] = []
    for number, version in enumerate(order):
        gateway = replica(version)
        await gateway.start()
        assert await running_version(gateway) == version
        assert [await status(gateway, path) for path in paths] == [202] * number
        paths.append(await queue(gateway, number))
        if number < 2:
            await gateway.end()
    await relay.restore()
    while [await status(gateway, path) for path in paths] != [200] * 3:  # noqa: ASYNC110 - polled
        await asyncio.sleep(0.05)
    await gateway.end()
    writes = [each.target for each in platform.requests if each.method == "PUT"]
    assert writes == [f"{platform.base_path}/Observation/{number}" for number in range(3)]
    audit = tmp_path / "audit.jsonl"
    starts = [each["version"] for each in records(audit) if each["event"] == "start"]
    assert starts == order
    verified = await dhp("audit", "verify", audit)
    assert verified.code == 0, verified.out + verified.err


async def test_the_new_version_waits_for_the_end_of_the_old_one(
    replica: MakeReplica, later: str, tmp_path: Path
) -> None:
    """The outbox's lock holds between versions: writes are never sent by both."""
    old, new = replica(__version__), replica(later)
    await old.start()
    new.config.write_text(old.config.read_text())
    command = [*new.program, "run", "--config", new.config]
    # The audit's file has a lock of its own, and is opened first.
    elsewhere = {"DHP_GATEWAY_AUDIT__SINK": "stdout"}
    refused = start(command, tmp_path, environment=elsewhere, name="refused")
    try:
        assert refused.popen.wait(120) == 3
        assert "outbox.db" in refused.stderr
        assert await running_version(old) == __version__
    finally:
        await old.end()
