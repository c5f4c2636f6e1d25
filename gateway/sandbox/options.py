"""What can be set on a sandbox."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from gateway.sandbox.faults import Faults

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104 # noqa: S104 - only recognised here


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The address, the credentials and the manners of a sandbox. Durations are in seconds.

    `port` 0 takes any free one. `public_url` is the FHIR base that stands in the links, as an
    installation behind another name has it; without it that is the base which is listened on.
    `scopes` lists the only scopes that may be asked for. `redirect_uris` are compared literally;
    an empty tuple registers every http URL of a loopback host. The public client has no secret
    and may only use the authorization code grant, with PKCE. The refresh token of that grant comes
    as a cookie; `refresh_token_in_body` adds it to the JSON, as RFC 6749 has it. `gateway_url` is
    the origin of a gateway with a sign-in, for which there is then an example page; that names
    `gateway_audit`, the file of its audit.

    The platform is the national playground in small, traps included; `lenient` makes it keep
    If-None-Exist and `ifNoneExist`, filter by every parameter, declare what it does, and compress
    nothing unasked. Searches know of a write after `search_lag`.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    client_id: str = "hospital-demo"
    client_secret: str = field(default="sandbox-secret", repr=False)
    token_lifetime: int = 3600
    public_url: str | None = None
    faults: Faults = field(default_factory=Faults)
    public_client_id: str = "hospital-web"
    scopes: tuple[str, ...] = ()
    redirect_uris: tuple[str, ...] = ()
    code_lifetime: int = 60
    refresh_lifetime: int = 8 * 3600
    refresh_token_in_body: bool = False
    gateway_url: str | None = None
    gateway_audit: str | None = None
    lenient: bool = False
    search_lag: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.search_lag < math.inf:
            raise ValueError(f"--search-lag {self.search_lag:g}: give seconds, from 0")

    @property
    def lifetime(self) -> int:
        """The tokens' lifetime: that of the faults outranks the ordinary one."""
        return self.faults.token_lifetime or self.token_lifetime

    def origin(self, port: int) -> str:
        """The URL on which `port` of this host is reached, without a path."""
        host = _WILDCARDS.get(self.host, self.host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
