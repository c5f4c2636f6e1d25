"""The SSO exchanges a client's secret while callers send requests; none of them fails."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.doubles.load import Load
from tests.doubles.platform import Platform, PlatformConnection, fhir, read_body, unauthorized
from tests.doubles.sso import ReceivedRequest, ScriptedResponse, Sso, oauth_error, token
from tests.lifecycle.conftest import Service, StartService, secret_in
from tests.oauth.test_private_key_jwt import Assertion
from tests.oauth.test_signing_keys import EC, RSA, only, pem

LIFETIME = 3


class RotatingSso(Sso):
    """Issues short-lived tokens for the secrets, or keys, that it accepts."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = {"old"}
        self.newest = ""
        self._numbers = itertools.count(1)

    def response_to(self, request: ReceivedRequest) -> ScriptedResponse:
        form = request.form
        shown = form.get("client_secret") or Assertion.of(form["client_assertion"]).header["kid"]
        if shown not in self.takes:
            return oauth_error("invalid_client", 401)
        self.newest = f"{shown}.{next(self._numbers)}"
        return token(self.newest, expires_in=LIFETIME)

    def issued_for(self, shown: str) -> int:
        """Return how many requests used this secret or key, rejected ones included."""
        forms = [request.form for request in self.requests]
        secrets = [form.get("client_secret") for form in forms]
        kids = [
            Assertion.of(form["client_assertion"]).header["kid"]
            for form in forms
            if "client_assertion" in form
        ]
        return (secrets + kids).count(shown)


@pytest.fixture
async def sso() -> AsyncIterator[RotatingSso]:
    """Yield an SSO that accepts the old secret."""
    async with RotatingSso() as double:
        yield double


def reject_tokens_of(platform: Platform, shown: str) -> list[str]:
    """Let the platform reject tokens of a secret; return a list that gets the rejected ones."""
    refused: list[str] = []

    async def judge(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        bearer = connection.request.header("authorization") or ""
        if bearer.startswith(f"Bearer {shown}."):
            refused.append(bearer)
            connection.writer.write(unauthorized())
        else:
            connection.writer.write(fhir())
        await connection.writer.drain()

    platform.respond(judge)
    return refused


async def under_load(service: Service) -> Load:
    await service.wait_until_ready()
    load = Load(service.address, callers=4, pause=0.01)
    load.start()
    await load.wait_until_served(50)
    return load


async def wait_until_used(service: Service, platform: Platform, shown: str) -> None:
    await service.wait_until(
        lambda: (platform.requests[-1].header("authorization") or "").startswith(
            f"Bearer {shown}."
        ),
        f"a token for {shown}",
    )


async def require_change_over(
    service: Service, platform: Platform, sso: RotatingSso, load: Load, old: str, new: str
) -> None:
    """Let the SSO take the new secret only; tokens of the old one are revoked, and no call fails.

    A token revoked on its way would cause a second 401 for the request that fetched it.
    """
    await service.wait_until(
        lambda: platform.requests[-1].header("authorization") == f"Bearer {sso.newest}",
        "the newest token",
    )
    sso.takes = {new}
    refused = reject_tokens_of(platform, old)
    await wait_until_used(service, platform, new)
    await load.wait_until_served(load.served + 50)
    await load.finish()
    assert load.failures == {}
    assert 1 <= len(refused) <= load.callers


async def test_with_both_secrets_in_the_file_nothing_is_rejected(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("old\n")
    service = start_service(**secret_in(file))
    refused = reject_tokens_of(platform, "nothing")
    load = await under_load(service)
    file.write_text("new\nold\n")
    await service.wait_until(lambda: sso.issued_for("new") > 0, "a try with the new secret")
    sso.takes = {"old", "new"}
    await load.wait_until_served(load.served + 50)
    sso.takes = {"new"}
    await wait_until_used(service, platform, "new")
    file.write_text("new\n")
    await service.wait_for_metric(2, "dhp_gateway_config_reload_total", outcome="ok")
    await load.wait_until_served(load.served + 50)
    await load.finish()
    assert (load.failures, refused) == ({}, [])


async def test_the_old_secret_is_used_until_the_sso_accepts_the_new_one(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    file.write_text("old\n")
    service = start_service(**secret_in(file))
    load = await under_load(service)
    file.write_text("new\n")
    await service.wait_until(
        lambda: bool(service.logged("refused the changed secret")), "a refusal"
    )
    tokens = sso.issued_for("old")
    await service.wait_until(
        lambda: sso.issued_for("old") > tokens, "another token for the old secret"
    )
    await require_change_over(service, platform, sso, load, "old", "new")


async def test_a_file_with_two_keys_rotates_like_secrets(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    old, new = only(pem(EC)).kid, only(pem(RSA)).kid
    sso.takes = {old}
    file = tmp_path / "key.pem"
    file.write_text(pem(EC))
    credential = {"client_id": "hospital-17", "auth_method": "private_key_jwt"}
    service = start_service(credentials={"default": {**credential, "private_key_file": str(file)}})
    load = await under_load(service)
    file.write_text(pem(RSA) + pem(EC))
    await service.wait_until(lambda: sso.issued_for(new) > 0, "a try with the new key")
    before = sso.issued_for(old)
    await service.wait_until(lambda: sso.issued_for(old) > before, "another one with the old key")
    await require_change_over(service, platform, sso, load, old, new)
