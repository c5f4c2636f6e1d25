"""Who calls. In this version whoever reaches the listener is one caller, `anonymous`."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.proxy.headers import RequestHeader


class Caller(NamedTuple):
    """A caller's name, for metrics and audit, and the credential its requests go out with."""

    name: str
    credential: str


ANONYMOUS: Final = Caller("anonymous", "default")


class Callers:
    """Names the caller of a request, without waiting."""

    def __init__(self, anonymous: Caller = ANONYMOUS) -> None:
        self._anonymous = anonymous

    def identify(self, remote: str, header: RequestHeader) -> Caller:
        """The caller behind an address and a header section."""
        return self._anonymous
