"""What a supervisor and a worker say to each other: questions and answers over a socket pair.

The supervisor asks, the worker answers; one JSON object a line. The end of the connection is the
end of the other process.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

# A worker's metrics, or the settings of a large hospital, in one line.
_MAX_LINE: Final = 32 * 1024 * 1024

CommandHandler = Callable[[Any], Awaitable[Any]]


class ChannelClosedError(Exception):
    """The other process is gone."""


class CommandClient:
    """The supervisor's end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._open: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._listening = asyncio.get_running_loop().create_task(self._listen())

    @classmethod
    async def from_socket(cls, end: socket.socket) -> CommandClient:
        """Ask over this end of a socket pair, which is the object's own from now on."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_MAX_LINE))

    async def request(self, command: str, detail: Any = None, *, timeout: float) -> Any:
        """The answer. Raises `ChannelClosedError`, or TimeoutError after `timeout` seconds."""
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
        """Hang up."""
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
            pass  # cut off in mid-sentence: it is gone as well
        finally:
            for answer in self._open.values():
                if not answer.done():
                    answer.set_exception(ChannelClosedError())


class CommandServer:
    """The worker's end: `run` answers until the supervisor is gone."""

    def __init__(self, end: socket.socket, answers: Mapping[str, CommandHandler]) -> None:
        self._end = end
        self._answers = answers
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Answer questions, several at a time, until there will be no more."""
        reader, writer = await asyncio.open_unix_connection(sock=self._end, limit=_MAX_LINE)
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
            # No answer: the supervisor takes it for a worker that is not well.
            _log.exception("a question of the supervisor could not be answered")
            return
        writer.write(_line({"id": message["id"], "answer": answer}))


def _line(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"
