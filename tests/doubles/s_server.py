"""OpenSSL's own server, which can renew keys and renegotiate when a test wants it to.

async with SServer(ca, "-tls1_2") as server:
    ... let the gateway connect to server.port ...
    await server.type(RENEGOTIATE)
"""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Final, Self

import trustme

# Commands that the server reads from its standard input, at the start of each read.
RENEGOTIATE: Final = b"r\n"
ASK_FOR_CERTIFICATE: Final = b"R\n"
NEW_KEY: Final = b"k\n"
NEW_KEYS: Final = b"K\n"


class SServer:
    """A process that serves one connection.

    What is written to its standard input is sent; `said` holds its standard output, which contains
    what it received.
    """

    def __init__(self, ca: trustme.CA, *options: str) -> None:
        self._ca = ca
        self._options = options
        self.said = b""

    async def __aenter__(self) -> Self:
        self._stack = contextlib.ExitStack()
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(
            folder / "server.pem"
        )
        self._process = await asyncio.create_subprocess_exec(
            *("openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1"),
            *("-cert", str(folder / "server.pem"), *self._options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        await self.wait_for_output(b"\n", after=b"ACCEPT ")
        self.port = int(self.said.partition(b"ACCEPT ")[2].split()[0].rpartition(b":")[2])
        return self

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.communicate()
        self._stack.close()

    async def type(self, data: bytes) -> None:
        """Write a command, or octets to send, to standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def wait_for_output(self, words: bytes, *, after: bytes = b"") -> None:
        """Return when the output contains `words`, behind the first `after` if that is given."""
        assert self._process.stdout is not None
        while words not in self.said.partition(after)[2] if after else words not in self.said:
            data = await self._process.stdout.read(65536)
            assert data, self.said
            self.said += data
