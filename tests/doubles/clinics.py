"""Many callers with a credential each, as an integrator has them, and their SSO and platform."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from tests.doubles import sso as answers
from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import PlatformConnection, fhir, unauthorized
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, Sso


def clinic_names(count: int) -> list[str]:
    return [f"clinic-{number:04}" for number in range(count)]


def clinic_settings(names: list[str], secrets: str = "planted") -> dict[str, Any]:
    """Return sections of settings: a caller with the key `key-NAME` and a credential for each."""
    return {
        "credentials": {
            name: {"client_id": name, "client_secret": secrets} for name in ("default", *names)
        },
        "callers": [{"name": name, "api_key": f"key-{name}", "credential": name} for name in names],
    }


class ClinicSso(Sso):
    """Issues `token-NUMBER-of-CLIENT`; records when requests arrived. `is_down`: it answers 503."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived_at: list[float] = []
        self.accepted_secret: str | None = None
        self.is_down = False

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        self.arrived_at.append(time.monotonic())
        client = request.form["client_id"]
        if self.is_down:
            return answers.status(503)
        is_wrong = self.accepted_secret not in (None, request.form["client_secret"])
        if client in self._refused or is_wrong:
            return answers.oauth_error("invalid_client", 401)
        self._issued += 1
        return answers.token(f"token-{self._issued}-of-{client}")

    def most_in_a_second(self) -> int:
        arrived = sorted(self.arrived_at)
        first = most = 0
        for count, at in enumerate(arrived, 1):
            while arrived[first] <= at - 1.0:
                first += 1
            most = max(most, count - first)
        return most


@dataclass
class RefusingPlatform:
    """A response of the platform double: 401 to the tokens of `refused`, FHIR to others."""

    refused: set[str] = field(default_factory=set)

    async def __call__(self, connection: PlatformConnection) -> None:
        token = connection.request.header("authorization") or ""
        is_refused = token.rpartition("-of-")[2] in self.refused
        connection.writer.write(unauthorized() if is_refused else fhir())
        await connection.writer.drain()
        connection.request.complete = True


async def wait_for_tokens(gateway: RunningGateway, count: int) -> None:
    while True:
        body = (await gateway.ready())[1]
        lacking = body["degraded"].get("credentials", {"count": 0})["count"]
        if len(gateway.settings.callers) - lacking >= count:
            return
        await asyncio.sleep(0.05)
