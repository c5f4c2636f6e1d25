"""The options of a sandbox."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from gettext import gettext as _
from typing import Final

from gateway.sandbox.faults import Faults

_WILDCARDS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # nosec B104 # noqa: S104 - only recognised here


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The address, the credentials and the behaviour of a sandbox. Durations are in seconds.

    `port` 0 selects any free one. `public_url` is the FHIR base URL in links, for an installation
    behind another name; by default it is the URL of the listener. `scopes` lists the only scopes
    that may be requested. `redirect_uris` are compared literally; an empty tuple registers every
    http URL of a loopback host. The public client has no secret and may only use the authorization
    code grant, with PKCE. The refresh token of that grant is sent as a cookie;
    `refresh_token_in_body` also adds it to the JSON, as in RFC 6749. `gateway_url` is the origin of
    a gateway with a sign-in, and enables the example page, which names `gateway_audit`, the audit
    file of that gateway.

    The platform is a small copy of the national playground, including its pitfalls. With `lenient`
    it evaluates If-None-Exist and `ifNoneExist`, filters by every parameter, declares all that it
    supports, and compresses nothing without a request. Searches find a write only after
    `search_lag`.
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
            raise ValueError(
                _("{name}: give seconds, from 0").format(name=f"--search-lag {self.search_lag:g}")
            )

    @property
    def lifetime(self) -> int:
        """The lifetime of tokens; that of the faults has precedence."""
        return self.faults.token_lifetime or self.token_lifetime

    def origin(self, port: int) -> str:
        """Return the URL of `port` on this host, without a path."""
        host = _WILDCARDS.get(self.host, self.host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
