"""Third-party FHIR servers for a drive, each with the SSO whose tokens it accepts."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from tests.doubles.processes import Process, free_port, start
from tests.interop.stages import SECRETS, KeyFiles


@dataclass(slots=True)
class Sekmet:
    """sekmet-fhir: R4 with exports, its own SSO for SMART Backend Services, and a file of data.

    Its references are absolute, as Firely's are. Its data survives being killed.
    """

    python: Path
    directory: Path
    keys: KeyFiles
    secret: str = SECRETS["lab-post"]
    token_lifetime: int = 300
    port: int = 0
    process: Process | None = None

    @property
    def origin(self) -> str:
        """Return the origin that it listens at."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        """Return the FHIR base URL."""
        return f"{self.origin}/fhir"

    @property
    def token_url(self) -> str:
        """Return the URL of the SSO's token endpoint."""
        return f"{self.origin}/auth/token"

    def start(self) -> None:
        """Start the server, at the port that it had before."""
        self.port = self.port or free_port()
        clients = [
            {"client_id": "lab-post", "client_secret": self.secret},
            {"client_id": "lab-ec", "jwks": self.keys.registered("lab-ec")},
        ]
        settings = {
            "base_url": self.base,
            "host": "127.0.0.1",
            "port": self.port,
            "data_dir": str(self.directory / "data"),
            "simulator": {"enabled": False},
            "log_inbound": False,
            "server_behaviour": {"absolute_references": True},
            "server_auth": {
                "types": ["smart"],
                "smart_clients": clients,
                "token_lifetime": self.token_lifetime,
            },
        }
        (self.directory / "data").mkdir(exist_ok=True)
        file = self.directory / "sekmet.yaml"
        file.write_text(yaml.safe_dump(settings))
        command = [self.python.with_name("sekmet"), "serve", "--config", file]
        self.process = start(command, self.directory, name="sekmet")
        self.process.until_listening(self.port)

    def end(self, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal and wait for the end; SIGKILL unless another is given."""
        if self.process is not None and not self.process.ended:
            self.process.popen.send_signal(how)
            self.process.popen.wait()


def in_front_of(server: Sekmet, **changes: Any) -> dict[str, Any]:
    """Return settings of a gateway that uses `private_key_jwt` at the server's SSO."""
    credential = {
        "client_id": "lab-ec",
        "auth_method": "private_key_jwt",
        "private_key_file": str(server.keys.path("lab-ec")),
    }
    return {
        "platform": {"fhir_base_url": server.base},
        "sso": {"token_url": server.token_url},
        "credentials": {"default": credential},
        **changes,
    }


async def token_of(token_url: str, client_id: str, secret: str) -> str:
    """Request a token from the SSO as a program without a gateway does, and return it."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": secret,
    }
    async with aiohttp.request("POST", token_url, data=form) as answer:
        told: Mapping[str, Any] = json.loads(await answer.text())
    return str(told["access_token"])
