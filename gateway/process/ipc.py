"""Commands between a supervisor and a worker over a socket pair.

The supervisor sends a command, the worker responds; each message is one line of JSON. The end of
the connection means that the other process has ended.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# Bytes. A line holds a worker's metrics, or the settings of a large hospital.
_MAX_MESSAGE_BYTES: Final = 32 * 1024 * 1024

CommandHandler = Callable[[Any], Awaitable[Any]]


class ChannelClosedError(Exception):
    """The other process has ended or closed the channel."""


class CommandClient:
    """The supervisor's end of the channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    async def from_socket(cls, end: socket.socket) -> CommandClient:
        """Return a client on one end of a socket pair, and take over the socket."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_MAX_MESSAGE_BYTES))

    async def request(self, command: str, detail: Any = None, *, timeout: float) -> Any:
        """Return the worker's response.

        Raises `ChannelClosedError`, or TimeoutError after `timeout` seconds.
        """
        if self._listening.done():
            raise ChannelClosedError
        self._number += 1
        number = self._number
        answer = self._open[number] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(_line({"id": number, "ask": command, "detail": detail}))
            async with asyncio.timeout(timeout):
                return await answer
        finally:
            self._open.pop(number, None)

    async def close(self) -> None:
        """Close the channel; pending requests raise `ChannelClosedError`."""
        self._listening.cancel()
        await asyncio.gather(self._listening, return_exceptions=True)
        self._writer.close()

    async def _listen(self) -> None:
        try:
            while line := await self._reader.readline():
                message = json.loads(line)
                answer = self._open.get(message["id"])
                if answer is not None and not answer.done():
                    answer.set_result(message["answer"])
        except (OSError, ValueError):
            pass  # A connection cut off within a message means the same: the worker has ended.
        finally:
            for answer in self._open.values():
                if not answer.done():
                    answer.set_exception(ChannelClosedError())


class CommandServer:
    """The worker's end of the channel; `run` responds until the supervisor has ended."""

    def __init__(self, end: socket.socket, answers: Mapping[str, CommandHandler]) -> None:
        self._end = end
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Execute commands, several concurrently, until the supervisor closes the channel."""
        reader, writer = await asyncio.open_unix_connection(
            sock=self._end, limit=_MAX_MESSAGE_BYTES
        )
        loop = asyncio.get_running_loop()
        try:
            while line := await reader.readline():
                task = loop.create_task(self._answer(json.loads(line), writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except OSError:
            pass
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            writer.close()

    async def _answer(self, message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        try:
            answer = await self._answers[message["ask"]](message["detail"])
        except Exception:
            # Without a response, the supervisor's timeout treats this worker as failed.
            _log.exception("a question of the supervisor could not be answered")
            return
        writer.write(_line({"id": message["id"], "answer": answer}))


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
