"""@node-oauth/oauth2-server (npm): opaque tokens for clients without users."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.environments import node_with_packages
from tests.interop.sso.configured import ConfiguredServer, is_active, version_of_package
from tests.interop.sso.server import TOKEN_LIFETIME

HERE = Path(__file__).parent
# It does not decode what the Authorization field holds, so that other characters cost the gateway a
# second request once: `test_node_oauth2.py`.
_PLAIN_SECRET = "secret-of-lab-basic"
# Of the clients that `changes` names.
CHANGED_SECRET = "secret/of+lab=changed%"


@dataclass(slots=True)
class NodeOauth2(ConfiguredServer):
    """What token responses hold is up to the application; here clients have `changes` of it."""

    name: ClassVar[str] = "node-oauth2-server"
    client_ids: ClassVar[dict[str, str]] = {
        "client_secret_post": "lab-post",
        "client_secret_basic": "lab-basic",
    }
    second_secret: ClassVar[str] = _PLAIN_SECRET
    not_offered: ClassVar[dict[str, str]] = {
        "private_key_jwt": "client_secret_basic and client_secret_post alone"
    }
    # By client id: members of token responses that are replaced, or left out where they are None.
    changes: dict[str, dict[str, Any]] = field(default_factory=dict)

    def version(self) -> str:
        return version_of_package("@node-oauth/oauth2-server")

    def command(self) -> list[str | Path]:
        return [node_with_packages(HERE.parent), HERE / "node_oauth2.mjs"]

    def settings(self) -> dict[str, Any]:
        clients = {
            client_id: self._secret(method)
            for method, client_id in self.client_ids.items()
            if self.is_enabled or method != self.client_auth_methods[0]
        }
        return {
            "clients": {**dict.fromkeys(self.changes, CHANGED_SECRET), **clients},
            "lifetime": TOKEN_LIFETIME,
            "changes": self.changes,
            "memory": str(self.directory / "memory"),
        }

    def sso_settings(self) -> dict[str, Any]:
        return {"token_url": f"{self.public_url}/token"}

    async def accepts(self, token: str) -> bool:
        return await is_active(f"{self.public_url}/introspect", token)
