"""What `doctor` and the log say about a store that cannot be used."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.doubles.command import dhp
from tests.doubles.platform import Platform
from tests.doubles.processes import free_port
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.lifecycle.conftest import StartService
from tests.store.redis_server import RedisServer, redis_failover, redis_server

PASSWORD = "planted-password"
ANSWERS = ("ok", "it answers", "")


class Doctor:
    """Runs the command `doctor` of a gateway whose SSO and platform are there."""

    def __init__(self, folder: Path, platform: Platform, sso: Sso) -> None:
        self._file = folder / "gateway.yaml"
        listen = {"address": f"127.0.0.1:{free_port()}"}
        admin = {"address": f"127.0.0.1:{free_port()}"}
        self._settings = gateway_settings(platform.url, sso.token_url, listen=listen, admin=admin)

    async def findings(self, url: str, **store: Any) -> list[tuple[str, str, str]]:
        """Return level, message and hint of the check of the store, if it is checked."""
        self._file.write_text(json.dumps({**self._settings, "store": {"url": url, **store}}))
        result = await dhp("doctor", "--json", "--config", self._file)
        assert PASSWORD not in result.out + result.err
        findings = json.loads(result.out)["findings"]
        found = [each for each in findings if each["code"] == "store"]
        assert {each["key"] for each in found} <= {"store.url"}
        return [(each["level"], each["message"], each["hint"]) for each in found]

    async def failure(self, url: str, **store: Any) -> str:
        ((level, message, hint),) = await self.findings(url, **store)
        assert level == "error"
        return f"{message}. {hint}"


@pytest.fixture
def doctor(tmp_path: Path, platform: Platform, sso: Sso) -> Doctor:
    return Doctor(tmp_path, platform, sso)


class TlsServer:
    """A redis-server with a certificate, and the file with the CA of that."""

    def __init__(self, server: RedisServer, ca_file: Path) -> None:
        self.server = server
        self.url = server.url.replace("redis:", "rediss:")
        self.ca_file = str(ca_file)


@pytest.fixture(params=["127.0.0.1"])
def tls_server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[TlsServer]:
    authority = trustme.CA()
    certificate = authority.issue_cert(request.param)
    files = {name: tmp_path / f"{name}.pem" for name in ("cert", "key", "ca")}
    certificate.private_key_pem.write_to_path(files["key"])
    certificate.cert_chain_pems[0].write_to_path(files["cert"])
    authority.cert_pem.write_to_path(files["ca"])
    for server in redis_server(tmp_path, tls=files):
        yield TlsServer(server, files["ca"])


async def test_doctor_signs_in_to_the_store(doctor: Doctor, server: RedisServer) -> None:
    await server.command("ACL", "SETUSER", "gw", "on", f">{PASSWORD}", "-@all", "+time")
    url = server.url.replace("//", f"//gw:{PASSWORD}@")
    assert await doctor.findings(url) == [ANSWERS]
    assert await doctor.findings(f"unix://{server.socket}") == [ANSWERS]


async def test_doctor_does_not_check_a_store_in_memory(doctor: Doctor) -> None:
    assert await doctor.findings("memory://") == []


@pytest.mark.parametrize(
    ("user", "words"),
    [
        (
            (">right", "+@all"),
            ("it does not accept the user or the password (AuthenticationError)", "store.url"),
        ),
        ((f">{PASSWORD}", "-@all", "+get"), ("may not use a command", "docs/operations.md")),
    ],
)
async def test_what_the_user_of_the_store_lacks_is_named(
    doctor: Doctor, server: RedisServer, user: tuple[str, ...], words: tuple[str, ...]
) -> None:
    await server.command("ACL", "SETUSER", "gw", "on", *user)
    found = await doctor.failure(server.url.replace("//", f"//gw:{PASSWORD}@"))
    assert [each for each in words if each not in found] == []


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://127.0.0.1:{port}", ("no connection", "check host and port in store.url")),
        ("unix://{folder}/none", ("no connection",)),
        (
            "redis://no-such-host.invalid",
            ("its host name cannot be found", "Check the spelling in store.url"),
        ),
    ],
)
async def test_a_store_that_is_not_there_is_named(
    doctor: Doctor, tmp_path: Path, url: str, words: tuple[str, ...]
) -> None:
    found = await doctor.failure(url.format(port=free_port(), folder=tmp_path))
    assert found.startswith(words[0])
    assert words[-1] in found


async def test_a_store_that_does_not_answer_is_named(doctor: Doctor, server: RedisServer) -> None:
    server.freeze()
    assert (await doctor.failure(server.url)).startswith("no response in time")


async def test_an_untrusted_certificate_of_the_store_is_named(
    doctor: Doctor, tls_server: TlsServer
) -> None:
    found = await doctor.failure(tls_server.url)
    assert found.startswith("its certificate is not trusted")
    assert "store.ca_file" in found


@pytest.mark.parametrize("tls_server", ["store.clinic.uz"], indirect=True)
async def test_a_certificate_of_another_host_is_named(
    doctor: Doctor, tls_server: TlsServer
) -> None:
    found = await doctor.failure(tls_server.url, ca_file=tls_server.ca_file)
    assert found.startswith("its certificate is for another host")
    assert "store.url" in found


async def test_a_store_that_requires_a_client_certificate_is_named(
    doctor: Doctor, tls_server: TlsServer
) -> None:
    await tls_server.server.command("CONFIG", "SET", "tls-auth-clients", "yes")
    found = await doctor.failure(tls_server.url, ca_file=tls_server.ca_file)
    assert "set tls-auth-clients no in Redis" in found


async def test_a_store_with_tls_on_a_url_without_is_failed(
    doctor: Doctor, tls_server: TlsServer
) -> None:
    found = await doctor.failure(tls_server.server.url)
    assert found.startswith("the connection broke")
    assert "whether store.url must begin with rediss://" in found


async def test_an_unreadable_ca_of_the_store_is_reported_once(
    doctor: Doctor, tmp_path: Path
) -> None:
    assert await doctor.findings("rediss://127.0.0.1", ca_file=str(tmp_path / "none.pem")) == []


async def test_sentinels_without_such_a_service_are_named(doctor: Doctor, tmp_path: Path) -> None:
    for servers in redis_failover(tmp_path):
        assert await doctor.findings(servers.sentinel.url) == [ANSWERS]
        found = await doctor.failure(servers.sentinel.url.replace("hospital", "clinic"))
        assert found.startswith("no Sentinel knows a master of the service")
        assert "store.url" in found


async def test_an_error_of_the_store_is_named(doctor: Doctor, server: RedisServer) -> None:
    found = await doctor.failure(f"{server.url[:-1]}99")
    assert found.startswith("an access to it failed (ResponseError)")
    assert "store.url" in found


async def test_the_log_says_why_the_store_fails(
    start_service: StartService, server: RedisServer
) -> None:
    await server.command("ACL", "SETUSER", "gw", "on", ">right", "+@all")
    url = server.url.replace("//", f"//gw:{PASSWORD}@")
    service = await start_service.ready(store={"url": url})
    (line,) = service.logged("tokens are not shared until it is back")
    assert "it does not accept the user or the password (AuthenticationError)" in line
    assert "to do: correct them in store.url" in line
    assert PASSWORD not in service.process.stderr
