"""A headless Chromium that tests control, and an OpenID-certified SSO."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.environments import node_with_packages

HERE = Path(__file__).parent
BROWSERS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
_LONGEST_LINE = 64 * 1024 * 1024
_PATIENCE = 120

Sso = Callable[..., AbstractAsyncContextManager[str]]


@pytest.fixture(scope="session")
def node() -> str:
    """Return the node program, with the packages of package-lock.json beside the scripts."""
    return node_with_packages(HERE)


class BrowserUser:
    """A user of a browser. Each action is one line to `walk.mjs`, and so is its result."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def do(self, what: str, **parameters: Any) -> dict[str, Any]:
        """Do one action and return its result; an error of the browser fails the test."""
        self._writer.write(json.dumps({"do": what, **parameters}).encode() + b"\n")
        await self._writer.drain()
        async with asyncio.timeout(_PATIENCE):
            response: dict[str, Any] = json.loads(await self._reader.readline())
        assert "error" not in response, f"{what} {parameters}: {response['error']}"
        return response

    async def run(self, script: str, **parameters: Any) -> Any:
        """Run a script in the page and return its value."""
        return (await self.do("run", script=script, **parameters)).get("value")


@contextlib.contextmanager
def running_browser() -> Iterator[int]:
    """Yield the port of a browser, which closes afterwards."""
    node = node_with_packages(HERE)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium: make test-tools")
    pipe = subprocess.PIPE
    command = [node, HERE / "browser.mjs", program]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=HERE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield int(process.stdout.readline())
        # The browser closes at the end of its standard input.
        process.stdin.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[int]:
    """Yield the port of the browser that all tests share."""
    with running_browser() as port:
        yield port


@contextlib.asynccontextmanager
async def new_user(browser: int) -> AsyncIterator[BrowserUser]:
    """Yield a new, empty context of the browser."""
    reader, writer = await asyncio.open_connection("127.0.0.1", browser, limit=_LONGEST_LINE)
    yield BrowserUser(reader, writer)
    writer.write_eof()
    # The browser closes the context at the end of the connection.
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()


@pytest.fixture
async def user(browser: int) -> AsyncIterator[BrowserUser]:
    """Yield a user of the browser that all tests share."""
    async with new_user(browser) as user:
        yield user


@pytest.fixture
def certified_sso(node: str) -> Sso:
    """Return a function that starts oidc-provider and yields its issuer."""

    @contextlib.asynccontextmanager
    async def begin(**settings: Any) -> AsyncIterator[str]:
        script = str(HERE / "oidc_provider.mjs")
        async with _process(node, script, json.dumps(settings)) as process:
            assert process.stdout is not None
            issuer: str = json.loads(await process.stdout.readline())["issuer"]
            yield issuer
            process.terminate()

    return begin


@contextlib.asynccontextmanager
async def _process(*command: str) -> AsyncIterator[asyncio.subprocess.Process]:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=HERE,
        stdin=pipe,
        stdout=pipe,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LINE,
    )
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            async with asyncio.timeout(_PATIENCE):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
