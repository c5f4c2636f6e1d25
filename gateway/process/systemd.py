"""Notifies systemd of the service's state (sd_notify(3)); has no effect without its socket."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Mapping


class SystemdNotifier:
    """Sends states to the socket of `NOTIFY_SOCKET`.

    `watchdog` is the interval in seconds within which systemd expects a notification, None without
    one.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._address = _address(environ.get("NOTIFY_SOCKET", ""))
        self.watchdog = _watchdog(environ) if self._address else None

    def ready(self) -> None:
        """Notify that the service is up, or up again after a reload."""
        self._send("READY=1")

    def reloading(self) -> None:
        """Notify that the settings are being read again, until `ready` is called."""
        # systemd compares it with CLOCK_MONOTONIC, which is also Python's monotonic clock on Linux.
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """Notify that the shutdown has begun."""
        self._send("STOPPING=1")

    async def keep_alive(self) -> None:
        """Notify the watchdog until cancelled; return at once where systemd has none."""
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
                # The notification is optional: a missing or full socket must not stop the service.
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
