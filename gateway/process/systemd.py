"""Tells systemd how the service fares (sd_notify(3)); does nothing where nobody listens."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping
from typing import Final

# Variables that concern this process only: a child that inherited them would speak for it.
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class SystemdNotifier:
    """Sends states to the socket of `NOTIFY_SOCKET`.

    `watchdog` is the interval in seconds in which systemd wants a sign of life; None: never.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environ) if self._address else None

    def ready(self) -> None:
        """The service is up, or up again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """The settings are being read again; `ready` ends that."""
        # systemd compares it with CLOCK_MONOTONIC, which on Linux is Python's, too.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    async def keep_alive(self) -> None:
        """Give signs of life until cancelled; returns at once where none are wanted."""
        while self.watchdog is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog / 2)

    def _send(self, state: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.setblocking(False)
            try:
                sender.sendto(state.encode(), self._address)
            except OSError:
                # Nobody who could be told that nobody listens.
                return


def _address(text: str) -> str:
    if text.startswith("@"):
        return "\0" + text[1:]
    return text if text.startswith("/") else ""


def _watchdog(environ: Mapping[str, str]) -> float | None:
    try:
        microseconds = int(environ.get("WATCHDOG_USEC", ""))
        for_process = int(environ.get("WATCHDOG_PID", os.getpid()))
    except ValueError:
        return None
    return microseconds / 1e6 if microseconds > 0 and for_process == os.getpid() else None
