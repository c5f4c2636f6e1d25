"""The SSO exchanges a client's secret while callers send requests: none of them fails."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.doubles.load import Load
from tests.doubles.platform import Line, Platform, fhir, read_body, unauthorized
from tests.doubles.sso import Answer, SeenRequest, Sso, refusal, token
from tests.lifecycle.conftest import Service, StartService, secret_in
from tests.oauth.test_private_key_jwt import Assertion
from tests.oauth.test_signing_keys import EC, RSA, only, pem

LIFETIME = 3


class RotatingSso(Sso):
    """Gives short tokens to who knows a secret that it takes, or signs with a key that it knows."""

    def __init__(self) -> None:
        super().__init__()
        self.takes = {"old"}
        self.newest = ""
        self._numbers = itertools.count(1)

    def answer_to(self, request: SeenRequest) -> Answer:
        """Judge the secret, or the name of the key."""
        form = request.form
        shown = form.get("client_secret") or Assertion.of(form["client_assertion"]).header["kid"]
        if shown not in self.takes:
            return refusal("invalid_client", 401)
        self.newest = f"{shown}.{next(self._numbers)}"
        return token(self.newest, expires_in=LIFETIME)

    def issued_for(self, shown: str) -> int:
        """How many requests showed this secret or key, refused ones included."""
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
    """An SSO that takes the old secret."""
    async with RotatingSso() as double:
        yield double


def refuse_tokens_of(platform: Platform, shown: str) -> list[str]:
    """Let the platform no longer take what was issued for a secret; keeps what it refused."""
    refused: list[str] = []

    async def judge(line: Line) -> None:
        await read_body(line.reader, line.seen)
        bearer = line.seen.header("authorization") or ""
        if bearer.startswith(f"Bearer {shown}."):
            refused.append(bearer)
            line.writer.write(unauthorized())
        else:
            line.writer.write(fhir())
        await line.writer.drain()

    platform.answer(judge)
    return refused


async def under_load(service: Service) -> Load:
    """Callers that send all the time."""
    await service.until_ready()
    load = Load(service.address, callers=4, pause=0.01)
    load.start()
    await load.until_served(50)
    return load


async def until_used(service: Service, platform: Platform, shown: str) -> None:
    """Return when the platform got a token that was issued for this secret."""
    await service.until(
        lambda: (platform.seen[-1].header("authorization") or "").startswith(f"Bearer {shown}."),
        f"a token for {shown}",
    )


async def until_newest_used(service: Service, platform: Platform, sso: RotatingSso) -> None:
    """Return when the token that was issued last is in use: none is on its way.

    One that the platform revokes on its way would be the second 401 for whom it was fetched.
    """
    await service.until(
        lambda: platform.seen[-1].header("authorization") == f"Bearer {sso.newest}",
        "the newest token",
    )


async def test_with_an_overlap(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    """Both secrets in the file: the SSO changes over when it likes, and nothing is refused."""
    file = tmp_path / "secret"
    file.write_text("old\n")
    service = start_service(**secret_in(file))
    refused = refuse_tokens_of(platform, "nothing")
    load = await under_load(service)
    file.write_text("new\nold\n")
    await service.until(lambda: sso.issued_for("new") > 0, "a try with the new secret")
    sso.takes = {"old", "new"}
    await load.until_served(load.served + 50)
    sso.takes = {"new"}
    await until_used(service, platform, "new")
    file.write_text("new\n")
    await service.until_metric(2, "dhp_gateway_config_reload_total", outcome="ok")
    await load.until_served(load.served + 50)
    await load.finish()
    assert (load.failures, refused) == ({}, [])


async def test_file_first(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    """The old secret stays in use until the SSO takes the new one; revoked tokens cost a retry."""
    file = tmp_path / "secret"
    file.write_text("old\n")
    service = start_service(**secret_in(file))
    load = await under_load(service)
    file.write_text("new\n")
    await service.until(lambda: bool(service.logged("refused the changed secret")), "a refusal")
    tokens = sso.issued_for("old")
    await service.until(lambda: sso.issued_for("old") > tokens, "another token for the old secret")
    await until_newest_used(service, platform, sso)
    sso.takes = {"new"}
    refused = refuse_tokens_of(platform, "old")
    await until_used(service, platform, "new")
    await load.until_served(load.served + 50)
    await load.finish()
    assert load.failures == {}
    assert 1 <= len(refused) <= load.callers


async def test_sso_first(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    """Tokens outlive the SSO's change; the file is read again as soon as the old one is refused."""
    file = tmp_path / "secret"
    file.write_text("old\n")
    service = start_service(**secret_in(file))
    load = await under_load(service)
    sso.takes = {"new"}
    file.write_text("new\n")
    await until_used(service, platform, "new")
    await load.until_served(load.served + 50)
    await load.finish()
    assert load.failures == {}


async def test_keys(
    start_service: StartService, platform: Platform, sso: RotatingSso, tmp_path: Path
) -> None:
    """A key gives way to another in the same way, over a file that holds both."""
    old, new = only(pem(EC)).kid, only(pem(RSA)).kid
    sso.takes = {old}
    file = tmp_path / "key.pem"
    file.write_text(pem(EC))
    credential = {"client_id": "hospital-17", "auth_method": "private_key_jwt"}
    service = start_service(credentials={"default": {**credential, "private_key_file": str(file)}})
    load = await under_load(service)
    file.write_text(pem(RSA) + pem(EC))
    await service.until(lambda: sso.issued_for(new) > 0, "a try with the new key")
    before = sso.issued_for(old)
    await service.until(lambda: sso.issued_for(old) > before, "another one with the old key")
    await until_newest_used(service, platform, sso)
    sso.takes = {new}
    refused = refuse_tokens_of(platform, old)
    await until_used(service, platform, new)
    await load.until_served(load.served + 50)
    await load.finish()
    assert load.failures == {}
    assert 1 <= len(refused) <= load.callers
