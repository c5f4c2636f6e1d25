"""The steps of every program, and their checks: its output, and the requests that were received."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.legacy.line import RecordingRelay
from tests.legacy.records import KNOWN, PAGES, Records
from tests.legacy.stacks import OK

PATIENCE = 120
_NEXT = re.compile(rb'"relation": ?"next", ?"url": ?"([^"]+)"')


@dataclass(frozen=True, slots=True)
class Reply:
    """A response as a program reports it."""

    status: int
    etag: str
    location: str
    body: bytes


class Program:
    """A running program, which sends one request at a time on demand."""

    def __init__(self, arguments: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._arguments = arguments
        self._out = folder / "answer"
        self._environment = {**environment, "OUT": str(self._out)}
        self._errors = folder / "errors"

    async def __aenter__(self) -> Self:
        with self._errors.open("wb") as errors:
            self._process = await asyncio.create_subprocess_exec(
                *self._arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                env=self._environment,
            )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.communicate(), PATIENCE)
        except TimeoutError:
            self._process.kill()
            await self._process.communicate()

    async def ask(
        self, method: str, what: str, body: Path | None = None, etag: str | None = None
    ) -> Reply:
        """Let the program send a request, and return its report of the response."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = "\t".join((method, what, str(body or "-"), etag or "-"))
        self._process.stdin.write(f"{order}\n".encode())
        try:
            said = await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)
        except TimeoutError:
            self._process.kill()
            raise AssertionError(f"silent for {PATIENCE} s") from None
        words = said.decode().rstrip("\n").split("\t")
        if len(words) != 3 or not words[0].isdigit():
            raise AssertionError(f"{said!r} {self._errors.read_text(errors='replace')[-2000:]}")
        return Reply(int(words[0]), words[1], words[2], self._out.read_bytes())


@dataclass(slots=True)
class Walk:
    """One program's steps; `many` where one order makes five requests."""

    program: Program
    base: str
    name: str
    line: RecordingRelay
    records: Records
    content: Path
    folder: Path
    many: bool = False
    proxied: bool = False
    place: str = ""

    async def steps(self, idle_step: Callable[[], Awaitable[None]]) -> dict[str, str]:
        """Run all steps and return their results.

        `idle_step` returns when the gateway has closed the program's connections.
        """
        results = {}
        for step in (
            *(self.read, self.search, self.paging, self.create, self.update, self.delete),
            *(self.error, self.upload, self.download, self.five),
        ):
            results |= await _tried(step)
        await idle_step()
        results |= await _tried(self.idle)
        if self.proxied:
            absolute = [target.startswith("http://") for _, _, target in self.line.requests]
            results["proxy"] = OK if absolute and all(absolute) else "not in absolute form"
        return results

    async def read(self) -> None:
        """Read an existing resource; it must arrive unchanged."""
        response = await self.program.ask("GET", f"{self.base}/Patient/known")
        assert (response.status, json.loads(response.body)) == (200, KNOWN)

    async def search(self) -> None:
        """Search for a Cyrillic name; it must reach the platform unchanged."""
        response = await self.program.ask("SEARCH", self.name)
        assert response.status == 200
        assert self.records.done[self.name, "search"] == 1

    async def paging(self) -> None:
        """Follow every `next` link, each of which must lead through the gateway."""
        url, pages, before = f"{self.base}/Patient?_count=1", 0, len(self.line.requests)
        while url:
            response = await self.program.ask("GET", url)
            pages += response.status == 200
            found = _NEXT.search(response.body)
            url = found[1].decode() if found else ""
        assert pages == PAGES
        assert len(self.line.requests) - before == PAGES, "past the gateway"

    async def create(self) -> None:
        """Create a resource exactly once; Location and ETag must be readable."""
        made = await self.program.ask("POST", f"{self.base}/Patient", self._patient())
        self.place, _, version = made.location.partition("/_history/")
        assert (made.status, made.etag, version) == (201, 'W/"1"', "1")
        assert self.records.done[self.name, "create"] == 1

    async def update(self) -> None:
        """Update twice; the second time the version is outdated."""
        for status, etag in ((200, 'W/"2"'), (412, "")):
            changed = await self.program.ask("PUT", self.place, self._patient(), 'W/"1"')
            assert (changed.status, changed.etag) == (status, etag)
        assert self.records.done[self.name, "update"] == 1

    async def delete(self) -> None:
        gone = await self.program.ask("DELETE", self.place)
        assert gone.status == 200
        assert self.records.done[self.name, "delete"] == 1

    async def error(self) -> None:
        """Read a missing resource; the text of the platform's outcome must be readable."""
        response = await self.program.ask("GET", f"{self.base}/Patient/nobody")
        assert response.status == 404
        assert json.loads(response.body)["issue"][0]["details"]["text"] == "Бундай ёзув йўқ"

    async def upload(self) -> None:
        assert (await self.program.ask("POST", f"{self.base}/Binary", self.content)).status == 201

    async def download(self) -> None:
        received = await self.program.ask("GET", f"{self.base}/Binary/1")
        assert received.body == self.content.read_bytes()

    async def five(self) -> str:
        """Return whether five requests share one connection."""
        before = len(self.line.requests)
        for _ in range(1 if self.many else 5):
            response = await self.program.ask(
                "FIVE" if self.many else "GET", f"{self.base}/Patient/known"
            )
            assert response.status == 200
        used = [connection for connection, *_ in self.line.requests[before:]]
        assert len(used) == 5
        one, each = len(set(used)) == 1, len(set(used)) == 5
        assert one or each, used
        return "new" if each else "one" if self.many else OK

    async def idle(self) -> None:
        """Send a create after the gateway has closed the program's connection."""
        before = self.records.done[self.name, "create"]
        response = await self.program.ask("POST", f"{self.base}/Patient", self._patient())
        assert response.status == 201
        assert self.records.done[self.name, "create"] == before + 1

    def _patient(self) -> Path:
        patient = {"resourceType": "Patient", "name": [{"family": self.name}]}
        path = self.folder / "patient.json"
        path.write_text(json.dumps(patient, ensure_ascii=False), encoding="utf-8")
        return path


async def _tried(step: Callable[[], Awaitable[str | None]]) -> dict[str, str]:
    try:
        said = await step() or OK
    except (AssertionError, OSError, ValueError, TimeoutError) as failure:
        said = f"failed: {failure!r}"
    return {step.__name__: said}
