"""What the rows need to know of a third-party authorization server.

Each server is a class of this kind. It runs as a process behind a front (`front.py`), which counts
token requests and makes faults; the server is told the front's URL as its public one, so that
issuer and links name the front.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.browser.conftest import BrowserUser
from tests.doubles.processes import Process
from tests.interop.stages import KeyFiles

# Seconds that an access token lasts, where the server lets one choose.
TOKEN_LIFETIME = 5


@dataclass(slots=True)
class SsoServer(ABC):
    """A server whose process can be stopped and started again with all that it knew.

    `directory` is empty at first; `keys` has those of the clients that sign. `gateway` is the
    origin at which users reach the gateway: the client of the sign-in is registered with its
    `/auth/callback`, its `/auth/backchannel-logout` and its `/` for after a sign-out.
    """

    public_url: str
    port: int
    directory: Path
    keys: KeyFiles
    gateway: str
    process: Process | None = field(default=None, init=False)
    _has_crashed: bool = field(default=False, init=False)
    # Of the client of the first method.
    secret: str = ""

    # The column of the table.
    name: ClassVar[str]
    # By the method of RFC 7591: the id of the client without users that authenticates so.
    client_ids: ClassVar[dict[str, str]] = {
        "client_secret_post": "lab-post",
        "client_secret_basic": "lab-basic",
        "private_key_jwt": "lab-ec",
    }
    # Of the other client with a secret.
    second_secret: ClassVar[str]
    # What clients without users request.
    scope: ClassVar[str] = ""
    # Of the gateway's section `login`, for the client `hospital-web`: its secret and scope.
    web_client: ClassVar[dict[str, str]] = {}
    # Why a row cannot be asked of this server, by the row's name.
    not_offered: ClassVar[dict[str, str]] = {}
    # Whether its own sign-out tells the gateway; else the session ends at the next refresh.
    has_back_channel: ClassVar[bool] = True
    # Where the server's page to sign in asks for the password.
    password_field: ClassVar[str] = "input[type=password]"
    # The user that signs in; the gateway's audit shows `user`.
    user: ClassVar[str] = "dilnoza"
    password: ClassVar[str] = "parol-2026"

    @property
    def client_auth_methods(self) -> tuple[str, ...]:
        return tuple(self.client_ids)

    @abstractmethod
    def version(self) -> str:
        """Return the version that runs."""

    @abstractmethod
    def start(self) -> None:
        """Start the process at `port` and wait until it answers."""

    def stop(self) -> None:
        if self.process is not None:
            self._has_crashed |= self.process.crashed
            self.process.terminate()

    def has_crashed(self) -> bool:
        """Return whether the process has ever ended by a fault of its own."""
        return self._has_crashed or (self.process is not None and self.process.crashed)

    @abstractmethod
    def sso_settings(self) -> dict[str, Any]:
        """Return the gateway's section `sso`: by `issuer` where there is discovery."""

    def credential(self, method: str) -> dict[str, Any]:
        """Return the gateway's settings of a client that authenticates by `method`."""
        client_id = self.client_ids[method]
        scope = {"scope": self.scope} if self.scope else {}
        proof = self.proof(method, client_id)
        return {"client_id": client_id, "auth_method": method, **proof, **scope}

    def proof(self, method: str, client_id: str) -> dict[str, str]:
        """Return the settings by which a client shows that it is the one: its key or its secret."""
        if method == "private_key_jwt":
            return {"private_key_file": str(self.keys.path(client_id))}
        return {"client_secret": self._secret(method)}

    def _secret(self, method: str) -> str:
        """Return the secret of the client that authenticates by `method`."""
        return self.secret if method == self.client_auth_methods[0] else self.second_secret

    def registered_proof(self, method: str) -> dict[str, Any]:
        """Return by what the server knows such a client, as a registration of RFC 7591 holds it."""
        if method == "private_key_jwt":
            return {"jwks": self.keys.registered(self.client_ids[method])}
        return {"client_secret": self._secret(method)}

    @abstractmethod
    async def accepts(self, token: str) -> bool:
        """Return whether a platform would accept the token: introspected, or signed and fresh."""

    @abstractmethod
    def change_secret(self) -> str:
        """Give the client of the first method another secret, and return that."""

    @abstractmethod
    def enable_client(self, *, enabled: bool) -> None:
        """Switch the client of the first method off or on."""

    # Sign-in of users; a server without it names the rows in `not_offered`.

    def login_settings(self) -> dict[str, Any]:
        back = f"{self.gateway}/"
        return {"client_id": "hospital-web", **self.web_client, "post_logout_redirect_uri": back}

    async def sign_in(self, person: BrowserUser, tab: int = 0) -> None:
        """From the first page that the server shows to the return to the gateway."""
        raise NotImplementedError

    async def confirm_sign_out(  # noqa: B027 - most servers ask nothing
        self, person: BrowserUser, tab: int = 0
    ) -> None:
        """Confirm a sign-out where the server asks for it at its `end_session_endpoint`."""

    async def sign_out(self, person: BrowserUser, tab: int = 0) -> None:
        """Sign out at the server's own page, so that it tells the gateway."""
        raise NotImplementedError

    def rotate_key(self) -> None:
        """Sign from now on with another key than before."""
        raise NotImplementedError
