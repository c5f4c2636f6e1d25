"""The doctor against set-ups that are each broken in one way: it names the right cause."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
import ssl
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
import yaml
from aiohttp import web
from pytest_aiohttp import AiohttpRawServer

from gateway.os_support import share_port
from tests.doubles.command import dhp
from tests.doubles.platform import Platform, PlatformConnection, fhir, http, outcome, read_body
from tests.doubles.processes import GatewayProcess, free_port, start_gateway
from tests.doubles.sso import Sso

STATEMENT = b'{"resourceType":"CapabilityStatement","fhirVersion":"5.0.0"}'
SECRET = "planted-doctor-secret"


class Ward:
    """A set-up that works, to be broken by a test, and the doctor to examine it."""

    def __init__(self, folder: Path, platform: Platform, sso: Sso) -> None:
        self.folder = folder
        self.secret = folder / "secret"
        self.secret.write_text(SECRET)
        self.secret.chmod(0o600)
        self.settings: dict[str, Any] = {
            "environment": "custom",
            "listen": {"address": f"127.0.0.1:{free_port()}"},
            "admin": {"address": f"127.0.0.1:{free_port()}"},
            "platform": {"fhir_base_url": platform.url, "connect_timeout": 2},
            "sso": {"token_url": sso.token_url, "timeout": 2},
            "credentials": {
                "default": {"client_id": "hospital-17", "client_secret_file": str(self.secret)}
            },
        }

    async def examine(self, *options: str) -> tuple[int, str]:
        """The doctor's exit code and what was printed."""
        return await self.run("doctor", *options)

    async def run(self, command: str, *options: str) -> tuple[int, str]:
        """A command's exit code and what was printed."""
        file = self.folder / "settings.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        result = await dhp(command, "--config", file, *options)
        text = result.out + result.err
        assert SECRET not in text
        return result.code, text

    async def findings(self) -> list[dict[str, str]]:
        """What the doctor says to programs; the exit code must fit."""
        code, text = await self.examine("--json")
        document = json.loads(text)
        found: list[dict[str, str]] = document["findings"]
        errors = [finding for finding in found if finding["level"] == "error"]
        assert code == (1 if errors else 0)
        assert document["ok"] == (not errors)
        assert all(finding["hint"] for finding in errors), "a failure without advice"
        return found

    async def failed(self) -> dict[str, str]:
        """The failed checks by name, with what is said about each."""
        return {
            name_of(finding): f"{finding['message']}. {finding['hint']}"
            for finding in await self.findings()
            if finding["level"] == "error"
        }


def name_of(finding: dict[str, str]) -> str:
    """A check's name as people see it."""
    code, key = finding["code"], finding["key"]
    if code in ("secret", "listener", "audit", "token"):
        return f"{code} {key.removeprefix('credentials.') if code == 'token' else key}"
    words = code.split("-")
    return " ".join(
        each.upper() if each in ("sso", "dns", "tcp", "tls") else each for each in words
    )


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    """A platform with a capability statement."""
    async with Platform() as double:
        double.respond(fhir(STATEMENT, 200, ("Date", formatdate(usegmt=True))))
        yield double


@pytest.fixture
def ward(tmp_path: Path, platform: Platform, sso: Sso) -> Ward:
    """A set-up that works."""
    return Ward(tmp_path, platform, sso)


async def test_healthy_setup_passes(ward: Ward, platform: Platform) -> None:
    """A set-up that works passes every check, one line each, and ends with 0."""
    code, text = await ward.examine()
    assert code == 0
    assert "failed" not in text
    for check in ("settings", "secret", "listener", "DNS", "TCP", "token", "clock", "metadata"):
        assert check in text
    assert "the SSO gave a token for 5 min" in text
    assert platform.requests[0].header("authorization") == "Bearer token-1"


async def test_programs_get_codes_and_keys(ward: Ward) -> None:
    """Each finding has a level, a code and the setting that it is about, which stay as they are."""
    told = [(each["level"], each["code"], each["key"]) for each in await ward.findings()]
    # Only root is told which files other users cannot read.
    assert [each for each in told if each[1] != "files"] == [
        ("ok", "settings", ""),
        ("ok", "secret", "credentials.default.client_secret"),
        ("ok", "listener", "listen.address"),
        ("ok", "listener", "admin.address"),
        ("ok", "sso-dns", "sso.token_url"),
        ("ok", "sso-tcp", "sso.token_url"),
        ("skipped", "sso-tls", "sso.token_url"),
        ("ok", "platform-dns", "platform.fhir_base_url"),
        ("ok", "platform-tcp", "platform.fhir_base_url"),
        ("skipped", "platform-tls", "platform.fhir_base_url"),
        ("ok", "token", "credentials.default"),
        ("ok", "clock", ""),
        ("ok", "platform-metadata", "platform.fhir_base_url"),
        ("skipped", "sso-documents", "sso.token_url"),
        ("skipped", "platform-documents", "platform.fhir_base_url"),
    ]


@pytest.mark.parametrize("command", ["check", "doctor"])
async def test_programs_get_one_document_for_wrong_settings(ward: Ward, command: str) -> None:
    """Every problem of the settings has its line, and code 2 comes before anything is opened."""
    ward.settings |= {"bogus": 1, "retries": {"max_attempts": 0}}
    code, text = await ward.run(command)
    assert (code, "bogus: " in text, "retries.max_attempts: " in text) == (2, True, True)
    code, text = await ward.run(command, "--json")
    document = json.loads(text)
    assert (code, document["ok"]) == (2, False)
    by_key = {finding["key"]: finding for finding in document["findings"]}
    assert by_key.keys() == {"bogus", "retries.max_attempts"}
    said = {"level": "error", "code": "setting", "message": "must be at least 1", "hint": ""}
    source = by_key["retries.max_attempts"]["source"]
    problem = {**said, "key": "retries.max_attempts", "source": source}
    assert by_key["retries.max_attempts"] == problem
    assert source.startswith("line ")


async def test_operators_of_the_outbox(ward: Ward) -> None:
    """A password file that is missing, and passwords sent without TLS, are found."""
    absent = str(ward.folder / "absent")
    ward.settings["admin"] = {
        "address": f"0.0.0.0:{free_port()}",
        "operators": [{"name": "dilnoza", "password_file": absent}],
    }
    code, text = await ward.examine()
    assert code == 1
    assert f"secret admin.operators[0].password: {absent}: no such file" in text
    assert "operators: dilnoza may decide about queued writes" in text
    assert "setting admin.address: is reachable from other machines, without TLS: pass" in text


async def test_readable_secret_file(ward: Ward) -> None:
    """A secret that every user can read is a fault, reported with the command that corrects it."""
    ward.secret.chmod(0o644)
    failed = await ward.failed()
    assert list(failed) == ["secret credentials.default.client_secret"]
    assert f"chmod 0600 {ward.secret}" in next(iter(failed.values()))


async def test_audit_file_that_cannot_be(ward: Ward) -> None:
    """A folder that is not there, or that is a file, is named with its key."""
    folder = ward.folder / "logs"
    ward.settings["audit"] = {"sink": "file", "path": str(folder / "audit.jsonl")}
    failed = await ward.failed()
    assert list(failed) == ["audit audit.path"]
    assert f"{folder} is not there" in failed["audit audit.path"]
    assert "install -d" in failed["audit audit.path"]
    folder.write_text("")
    assert f"{folder} is no folder" in (await ward.failed())["audit audit.path"]
    folder.unlink()
    folder.mkdir()
    assert await ward.failed() == {}
    assert list(folder.iterdir()) == []


async def test_audit_folder_of_another_user(ward: Ward) -> None:
    """Who may not write it is told; root is told that the gateway's user may not."""
    folder = ward.folder / "logs"
    folder.mkdir(mode=0o555)
    ward.settings["audit"] = {"sink": "file", "path": str(folder / "audit.jsonl")}
    if os.geteuid() == 0:
        assert f"{folder} belongs to root" in (await ward.examine())[1]
    else:
        assert f"{folder} cannot be written" in (await ward.failed())["audit audit.path"]


async def test_files_for_root_only(ward: Ward) -> None:
    """Run as root the doctor says which files the gateway's user may not read."""
    code, text = await ward.examine()
    assert code == 0
    assert (f"only root may read {ward.secret}" in text) == (os.geteuid() == 0)


async def test_taken_listener(ward: Ward) -> None:
    """A port with another listener is named with its setting."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ward.settings["listen"]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = await ward.failed()
    assert list(failed) == ["listener listen.address"]
    assert "in use" in failed["listener listen.address"]


@pytest.fixture
async def running(ward: Ward) -> AsyncIterator[GatewayProcess]:
    """A gateway that runs with the settings of the set-up."""
    ward.settings["shutdown"] = {"delay": 0}
    gateway = start_gateway(ward.settings, ward.folder)
    for key, url in (("listen", gateway.url), ("admin", gateway.admin_url)):
        ward.settings[key]["address"] = urlsplit(url).netloc
    try:
        await gateway.wait_for_status(200)
        yield gateway
    finally:
        await asyncio.to_thread(gateway.process.terminate)


@pytest.mark.usefixtures("running")
async def test_beside_a_running_gateway(ward: Ward) -> None:
    """Listeners that the gateway itself holds are no fault: it is examined while it runs."""
    # As of a service, which systemd gives a copy.
    copy = ward.folder / "copy"
    copy.write_text(SECRET)
    copy.chmod(0o600)
    ward.settings["credentials"]["default"]["client_secret_file"] = str(copy)
    found = [each for each in await ward.findings() if each["code"] == "listener"]
    for listener in found:
        assert "in use by the gateway that runs" in listener["message"]
        assert (listener["level"], listener["hint"]) == ("ok", "")


@pytest.mark.usefixtures("running")
@pytest.mark.parametrize(
    ("section", "change", "keys"),
    [
        ("platform", {"fhir_base_url": "http://127.0.0.1:1/fhir"}, "platform.fhir_base_url"),
        ("sso", {"token_url": "http://127.0.0.1:1/token"}, "sso.token_url"),
        (
            "credentials",
            {"default": {"client_id": "hospital-18", "client_secret": "x"}},
            "credentials.default.client_id",
        ),
    ],
)
async def test_beside_another_gateway(
    ward: Ward, section: str, change: dict[str, Any], keys: str
) -> None:
    """One that leads elsewhere has both ports: `run` would not start, and the doctor says so."""
    ward.settings[section] = {**ward.settings[section], **change}
    failed = await ward.failed()
    for key in ("listen.address", "admin.address"):
        told = failed[f"listener {key}"]
        assert "is in use by another gateway" in told
        assert f"It runs with other settings: {keys}." in told
        assert f"else change {key}" in told


@pytest.mark.usefixtures("running")
async def test_beside_a_gateway_that_listens_elsewhere(ward: Ward) -> None:
    """A port of operators that two gateways would share is a fault of the second."""
    ward.settings["listen"]["address"] = f"127.0.0.1:{free_port()}"
    failed = await ward.failed()
    assert list(failed) == ["listener admin.address"]
    assert "It runs with other settings: listen.address." in failed["listener admin.address"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ward.settings["listen"]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = await ward.failed()
    assert list(failed) == ["listener listen.address", "listener admin.address"]
    assert "Another program" in failed["listener listen.address"]


@pytest.mark.parametrize("shares", [True, False])
async def test_beside_a_replica_on_the_port(ward: Ward, shares: bool) -> None:
    """A port that a replica shares is free for the next one, and for no other gateway."""
    with socket.socket() as replica:
        share_port(replica)
        replica.bind(("127.0.0.1", 0))
        replica.listen()
        address = f"127.0.0.1:{replica.getsockname()[1]}"
        ward.settings["listen"] = {"address": address, "reuse_port": shares}
        failed = await ward.failed()
    assert list(failed) == ([] if shares else ["listener listen.address"])


@pytest.mark.usefixtures("running")
async def test_keys_in_lists_are_written_as_check_writes_them(ward: Ward) -> None:
    """An entry of a list stands in brackets, also where a running gateway was asked."""
    ward.settings["callers"] = [{"name": "lab", "networks": ["127.0.0.0/8"]}]
    _, text = await ward.examine()
    assert "yet: callers[0].name, callers[0].networks, " in text
    assert "callers.0" not in text


@pytest.mark.usefixtures("running")
async def test_beside_a_gateway_with_settings_of_before(ward: Ward) -> None:
    """What needs a restart to be in use is a warning, in the text as in JSON."""
    ward.settings["limits"] = {"max_concurrent_requests": 7}
    code, text = await ward.examine()
    assert code == 0
    said = "It does not run with these settings yet: limits.max_concurrent_requests. Restart it"
    for key in ("listen.address", "admin.address"):
        address = ward.settings[key.partition(".")[0]]["address"]
        assert f"warning listener {key}: {address} is in use by the gateway that runs. {said}" in (
            text.splitlines()
        )
    levels = {each["level"] for each in await ward.findings() if each["code"] == "listener"}
    assert levels == {"warning"}


@pytest.mark.parametrize("body", [{"ready": True}, {"alive": True}, {"status": "UP"}, "ok"])
async def test_another_program_on_the_ports(
    ward: Ward, aiohttp_raw_server: AiohttpRawServer, body: object
) -> None:
    """A web server that answers 200 to everything is not taken for the gateway."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response(body, headers={"Server": "nginx"})

    for section in ("listen", "admin"):
        server = await aiohttp_raw_server(answer)
        ward.settings[section]["address"] = f"127.0.0.1:{server.port}"
    failed = await ward.failed()
    assert set(failed) == {"listener listen.address", "listener admin.address"}
    assert all("Another program listens there" in told for told in failed.values())


async def test_a_unix_socket_of_another_program(ward: Ward) -> None:
    """One on which a process listens is taken, one that a process has left is not."""
    path = ward.folder / "gateway.sock"
    ward.settings["listen"]["address"] = f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        failed = await ward.failed()
    assert "another process listens there" in failed["listener listen.address"]
    assert await ward.failed() == {}
    assert path.exists()


@pytest.mark.parametrize(
    ("url", "check", "words"),
    [
        ("https://platform.invalid/fhir", "platform DNS", "platform.fhir_base_url"),
        ("https://127.0.0.1:{}/r5", "platform TLS", "does not speak TLS"),
    ],
    ids=["unknown name", "port without TLS"],
)
async def test_a_platform_that_cannot_be_reached(
    ward: Ward, platform: Platform, url: str, check: str, words: str
) -> None:
    """It fails at its step; what follows is left out."""
    ward.settings["platform"]["fhir_base_url"] = url.format(platform.port)
    failed = await ward.failed()
    assert list(failed) == [check]
    assert words in failed[check]


def tls_platform(*names: str, **options: Any) -> tuple[Platform, trustme.CA]:
    """A platform with a certificate of a private CA."""
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert(*names, **options).configure_cert(context)
    return Platform(tls=context), authority


async def test_untrusted_authority(ward: Ward) -> None:
    """A certificate of an unknown CA is told from other TLS faults."""
    double, _ = tls_platform("localhost")
    async with double:
        ward.settings["platform"]["fhir_base_url"] = double.url
        failed = await ward.failed()
    assert list(failed) == ["platform TLS"]
    assert "not trusted" in failed["platform TLS"]
    assert "platform.ca_file" in failed["platform TLS"]


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        pytest.param("other.example", {}, "another host", id="another name"),
        pytest.param(
            "localhost",
            {"not_after": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)},
            "not valid at this time",
            id="expired",
        ),
    ],
)
async def test_trusted_certificate_that_does_not_hold(
    ward: Ward, name: str, options: dict[str, Any], said: str
) -> None:
    """One for another host is named as such; an expired one leads to the clocks."""
    double, authority = tls_platform(name, **options)
    async with double:
        ward.settings["platform"]["fhir_base_url"] = double.url
        ward.settings["platform"]["ca_file"] = trust(authority, ward.folder)
        failed = await ward.failed()
    assert list(failed) == ["platform TLS"]
    assert said in failed["platform TLS"]


async def test_trusted_authority_passes(ward: Ward) -> None:
    """With the CA given the same kind of set-up is healthy, TLS included."""
    double, authority = tls_platform("localhost")
    async with double:
        double.respond(fhir(STATEMENT))
        ward.settings["platform"]["fhir_base_url"] = double.url
        ward.settings["platform"]["ca_file"] = trust(authority, ward.folder)
        assert await ward.failed() == {}


def trust(authority: trustme.CA, folder: Path) -> str:
    """The CA's certificate as a file."""
    file = folder / "ca.pem"
    authority.cert_pem.write_to_path(file)
    return str(file)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-600, "10 min ahead of"), (10799, "3 h behind")],
    ids=["ahead", "behind"],
)
async def test_wrong_clock(ward: Ward, platform: Platform, seconds: int, words: str) -> None:
    """By how much it is off the platform's is told as people say it."""
    theirs = formatdate(datetime.datetime.now(datetime.UTC).timestamp() + seconds, usegmt=True)
    platform.respond(fhir(STATEMENT, 200, ("Date", theirs)))
    failed = await ward.failed()
    assert list(failed) == ["clock"]
    assert f"this machine's clock is {words} the platform's" in failed["clock"]


async def test_wrong_base(ward: Ward, platform: Platform) -> None:
    """A base URL under which there is no capability statement is named."""
    platform.respond(http(404, b"<html>", ("Content-Type", "text/html")))
    failed = await ward.failed()
    assert list(failed) == ["platform metadata"]
    assert "platform.fhir_base_url" in failed["platform metadata"]


async def test_a_statement_without_end_is_not_read(ward: Ward, platform: Platform) -> None:
    """Of a statement beyond 16 MiB no more is read: it is none of a platform."""
    endless = STATEMENT[:-1] + b',"name":"' + b"x" * (17 * 1024 * 1024) + b'"}'
    platform.respond(fhir(endless, 200, ("Date", formatdate(usegmt=True))))
    failed = await ward.failed()
    assert list(failed) == ["platform metadata"]
    assert "no FHIR server" in failed["platform metadata"]


@pytest.mark.parametrize("version", ["4.0.1", "4.3.0", "3.0.2", "6.0.0-ballot2"])
@pytest.mark.parametrize("environment", ["custom", "dhp-playground", "production"])
async def test_other_fhir_version(
    ward: Ward, platform: Platform, environment: str, version: str
) -> None:
    """A server of another FHIR version is found: DHP's is R5, one of one's own may be any."""
    statement = {"resourceType": "CapabilityStatement", "fhirVersion": version}
    platform.respond(fhir(json.dumps(statement).encode()))
    ward.settings["environment"] = environment
    (found,) = [each for each in await ward.findings() if each["code"] == "platform-metadata"]
    assert found["message"] == f"FHIR {version}"
    assert found["hint"] == "This is not an R5 server"
    assert found["level"] == ("warning" if environment == "custom" else "error")


async def test_token_of_another_environment(ward: Ward, platform: Platform) -> None:
    """A platform that refuses the SSO's token points to mixed environments."""

    async def refuse(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(outcome(401))

    platform.respond(refuse)
    failed = await ward.failed()
    assert "same environment" in failed["platform metadata"]
