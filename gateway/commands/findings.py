"""What the doctor finds, and the servers it looks at."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from gateway.phrases import EMPTY_PHRASE, Phrase

State = Literal["ok", "failed", "skipped"]
Level = Literal["ok", "warning", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What one check found.

    `hint` says what to do when it failed, or what would be better: then it is a warning.
    """

    check: Phrase
    state: State
    detail: Phrase
    hint: Phrase = EMPTY_PHRASE

    @property
    def level(self) -> Level:
        """The state, or that it is `ok` with a warning."""
        return "warning" if self.state == "ok" and self.hint else self.state

    def line(self) -> Phrase:
        """One line for people."""
        state = Phrase(self.level)
        text = Phrase(
            "{state:<8}{check}: {detail}", state=state, check=self.check, detail=self.detail
        )
        return Phrase("{text}. {hint}", text=text, hint=self.hint) if self.hint else text


@dataclass(frozen=True, slots=True)
class CheckedServer:
    """One server the gateway talks to: its name in findings, its URL, its settings' prefix."""

    name: Phrase
    url: str
    setting_prefix: str
    trust: Callable[[], ssl.SSLContext | None]
    timeout: float

    @property
    def host(self) -> str:
        """The host name or address."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The port, by default the scheme's."""
        url = urlsplit(self.url)
        return url.port or (443 if url.scheme == "https" else 80)

    @property
    def is_tls(self) -> bool:
        """Whether it is reached over TLS."""
        return urlsplit(self.url).scheme == "https"
