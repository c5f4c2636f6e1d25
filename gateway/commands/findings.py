"""The result of a doctor's check, and the servers that are checked."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from gateway.i18n import EMPTY_MESSAGE, Message

State = Literal["ok", "failed", "skipped"]
Level = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check.

    `hint` says what to do after a failure. With the state `ok` it suggests an improvement, and the
    level is a warning.
    """

    check: Message
    state: State
    detail: Message
    hint: Message = EMPTY_MESSAGE

    @property
    def level(self) -> Level:
        """The state, or `warning` for `ok` with a hint."""
        return "warning" if self.state == "ok" and self.hint else self.state

    def line(self) -> Message:
        """Return the result as one line for the operator."""
        state = Message(self.level)
        text = Message(
            "{state:<8}{check}: {detail}", state=state, check=self.check, detail=self.detail
        )
        return Message("{text}. {hint}", text=text, hint=self.hint) if self.hint else text


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """A server that the gateway talks to: its name in results, its URL, and its setting's key.

    `trust` returns the TLS context, None without TLS; it raises `StartError`. `timeout` is in
    seconds.
    """

    name: Message
    url: str
    setting_prefix: str
    trust: Callable[[], ssl.SSLContext | None]
    timeout: float

    @property
    def host(self) -> str:
        """The host name or IP address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, by default that of the scheme."""
        url = urlsplit(self.url)
        return url.port or (443 if url.scheme == "https" else 80)

    @property
    def is_tls(self) -> bool:
        """Whether the URL's scheme is https."""
        return urlsplit(self.url).scheme == "https"
