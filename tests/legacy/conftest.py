"""All programs, compiled and run once: they share a platform and two gateways."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.platform import Platform
from tests.doubles.processes import REPOSITORY
from tests.doubles.sso import Sso
from tests.legacy.line import RecordingRelay, fates_of
from tests.legacy.records import Records
from tests.legacy.stacks import COMPILERS, HERE, STACKS, Stack
from tests.legacy.walk import Program, Walk

PUBLIC = "http://fhir.clinic.uz:8080/fhir"
# Seconds; longer than any pause between two requests of a program.
KEEP_ALIVE = 20
# By program: of each way, `direct` or `proxy`, the steps; as `fields` what became of those.
Results = dict[str, dict[str, dict[str, str]]]
Walked = tuple[dict[str, str], dict[str, str]]


@dataclass(slots=True)
class SharedServers:
    """The servers that all programs share; `slots` limits how many programs run at a time."""

    platform: Platform
    records: Records
    direct: RunningGateway
    proxied: RunningGateway
    folder: Path
    content: Path
    slots: asyncio.Semaphore

    async def run_program(self, name: str, stack: Stack, proxied: bool) -> Walked:
        """Run one program, direct or by proxy. Return the results of its steps and its fields."""
        gateway = self.proxied if proxied else self.direct
        folder = self.folder / f"{HERE.name}-{list(STACKS).index(name)}-{proxied:d}"
        folder.mkdir()
        async with RecordingRelay(gateway.address.port) as relay:
            here = f"http://127.0.0.1:{relay.port}"
            # Both forms of a base URL are in use, with and without a slash at its end.
            base = PUBLIC if proxied else f"{here}/fhir/"
            environment = {
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                "LANG": "C.UTF-8",
                "BASE": base,
                **({"http_proxy": here} if proxied else {}),
            }
            arguments = stack.arguments(self.folder, here if proxied else None)

            async def idle() -> None:
                self.slots.release()
                await relay.wait_until_closed()
                await self.slots.acquire()

            async with self.slots, Program(arguments, folder, environment) as program:
                walk = Walk(
                    program,
                    base,
                    f"Каримова-{folder.name}",
                    relay,
                    self.records,
                    self.content,
                    folder,
                    stack.words.get("five") == "one",
                    proxied,
                )
                return await walk.steps(idle), self._fields(gateway, relay)

    def _fields(self, gateway: RunningGateway, relay: RecordingRelay) -> dict[str, str]:
        """Return what became of the fields that a relay recorded."""
        requests = [
            request
            for request in self.platform.requests
            if request.header("x-request-id") in relay.ids
        ]
        sent = {name for request in requests for name, _ in request.headers}
        reported = gateway.gateway.status.facts("en")["fields_not_forwarded"]
        return fates_of(relay.fields, sent, (each["name"] for each in reported))


@contextlib.asynccontextmanager
async def _staged(folder: Path) -> AsyncIterator[SharedServers]:
    content = folder / "binary.json"
    data = "QUJD" * (10 * 2**20 // 4)
    content.write_text(json.dumps({"resourceType": "Binary", "contentType": "x/y", "data": data}))
    limits = {"keep_alive": KEEP_ALIVE}
    async with (
        Platform() as platform,
        Sso() as sso,
        running_gateway(platform.url, sso.token_url, limits=limits) as direct,
        running_gateway(
            platform.url, sso.token_url, limits=limits, listen={"public_url": PUBLIC}
        ) as proxied,
    ):
        records = Records(platform.url, content.read_bytes())
        platform.respond(records.respond)
        slots = asyncio.Semaphore(4)
        yield SharedServers(platform, records, direct, proxied, folder, content, slots)


async def _run(folder: Path, stacks: dict[str, Stack]) -> Results:
    async with _staged(folder) as stage:
        ways = [
            (name, way)
            for name, stack in stacks.items()
            for way in ("direct", "proxy")
            if way == "direct" or "proxy" not in stack.words
        ]
        async with asyncio.TaskGroup() as walks:
            found = [
                walks.create_task(stage.run_program(name, stacks[name], way == "proxy"))
                for name, way in ways
            ]
    results: Results = {name: {} for name in stacks}
    for (name, way), walk in zip(ways, found, strict=True):
        results[name][way], fields = walk.result()
        results[name]["fields"] = results[name].get("fields", {}) | fields
    return results


def _compile(build: Path) -> dict[str, str]:
    """Compile all programs in parallel. Return the output of each failed compiler by its name."""
    commands = {
        name: [each.format(build=build, here=HERE) for each in command]
        for name, command in COMPILERS.items()
    }
    processes = {
        name: subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=build)
        for name, command in commands.items()
    }
    said = {name: process.communicate()[0].decode() for name, process in processes.items()}
    return {name: said[name] for name, process in processes.items() if process.returncode != 0}


def _needed() -> Iterator[tuple[str, str]]:
    """Return Debian's packages of these tests, each with the program or file that proves it."""
    for line in (REPOSITORY / ".ci" / "system-packages").read_text("utf-8").splitlines():
        package, proof, use = line.split(maxsplit=2)
        if use.startswith("tests/legacy"):
            yield package, proof


def _there(proof: str) -> bool:
    return shutil.which(proof) is not None or Path(proof).is_file()


@pytest.fixture(scope="session")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Return the results of each program's steps, by stack, way and step."""
    missing = [package for package, proof in _needed() if not _there(proof)]
    if missing:
        pytest.skip(f"{', '.join(missing)}: make test-tools")
    folder = tmp_path_factory.mktemp("legacy")
    assert _compile(folder) == {}
    return asyncio.run(_run(folder, STACKS))
