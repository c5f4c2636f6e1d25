"""The command `doctor` for setups with one fault each: it names the cause."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from aiohttp import web
from pytest_aiohttp import AiohttpRawServer

from gateway.os_support import share_port
from tests.doubles.command import dhp
from tests.doubles.connect_proxy import ConnectProxy
from tests.doubles.platform import Platform, PlatformConnection, fhir, http, outcome, read_body
from tests.doubles.processes import GatewayProcess, free_port, start_gateway
from tests.doubles.sso import Sso
from tests.pipeline.testbed import tls_platform

STATEMENT = b'{"resourceType":"CapabilityStatement","fhirVersion":"5.0.0"}'
SECRET = "planted-doctor-secret"


class DoctorSetup:
    """Settings of a gateway that works, which a test may break; runs commands with them."""

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

    async def doctor(self, *options: str) -> tuple[int, str]:
        return await self.run("doctor", *options)

    async def run(self, command: str, *options: str) -> tuple[int, str]:
        """Return the exit code of a command and its output, which holds no secret."""
        file = self.folder / "settings.yaml"
        file.write_text(yaml.safe_dump(self.settings))
        result = await dhp(command, "--config", file, *options)
        text = result.out + result.err
        assert SECRET not in text
        return result.code, text

    async def findings(self) -> list[dict[str, str]]:
        """Return the findings of `doctor --json`, whose exit code must match."""
        code, text = await self.doctor("--json")
        document = json.loads(text)
        findings: list[dict[str, str]] = document["findings"]
        errors = [finding for finding in findings if finding["level"] == "error"]
        assert code == (1 if errors else 0)
        assert document["ok"] == (not errors)
        assert all(finding["hint"] for finding in errors), "an error without a hint"
        return findings

    async def failed(self) -> dict[str, str]:
        return {
            check_name(finding): f"{finding['message']}. {finding['hint']}"
            for finding in await self.findings()
            if finding["level"] == "error"
        }


def check_name(finding: dict[str, str]) -> str:
    code, key = finding["code"], finding["key"]
    if code in ("secret", "listener", "audit", "token"):
        return f"{code} {key.removeprefix('credentials.') if code == 'token' else key}"
    words = code.split("-")
    return " ".join(
        each.upper() if each in ("sso", "dns", "tcp", "tls") else each for each in words
    )


@pytest.fixture(name="platform")
async def platform_with_statement() -> AsyncIterator[Platform]:
    async with Platform() as double:
        double.respond(fhir(STATEMENT, 200, ("Date", formatdate(usegmt=True))))
        yield double


@pytest.fixture
def setup(tmp_path: Path, platform: Platform, sso: Sso) -> DoctorSetup:
    return DoctorSetup(tmp_path, platform, sso)


async def test_a_correct_setup_passes_every_check(setup: DoctorSetup, platform: Platform) -> None:
    code, text = await setup.doctor()
    assert code == 0
    *lines, summary = text.splitlines()
    printed = [line.partition(": ")[0].split(maxsplit=1) for line in lines]
    assert printed == [[each["level"], check_name(each)] for each in await setup.findings()]
    assert summary == "All is well."
    assert "the SSO gave a token for 5 min" in text
    assert platform.requests[0].header("authorization") == "Bearer token-1"


async def test_the_platform_is_asked_with_the_fields_of_the_gateways_own_requests(
    setup: DoctorSetup, platform: Platform
) -> None:
    """No firewall refuses it for the library that it uses, nor has the platform to compress."""
    await setup.doctor()
    for asked in platform.requests:
        assert asked.header("User-Agent") is None
        assert asked.header("Accept-Encoding") == "identity"


async def test_each_finding_has_a_level_a_code_and_a_key(setup: DoctorSetup) -> None:
    levels = [(each["level"], each["code"], each["key"]) for each in await setup.findings()]
    # Only root is told which files other users cannot read.
    assert [each for each in levels if each[1] != "files"] == [
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
async def test_invalid_settings_are_one_json_document(setup: DoctorSetup, command: str) -> None:
    setup.settings |= {"bogus": 1, "retries": {"max_attempts": 0}}
    code, text = await setup.run(command)
    assert (code, "bogus: " in text, "retries.max_attempts: " in text) == (2, True, True)
    code, text = await setup.run(command, "--json")
    document = json.loads(text)
    assert (code, document["ok"]) == (2, False)
    by_key = {finding["key"]: finding for finding in document["findings"]}
    assert by_key.keys() == {"bogus", "retries.max_attempts"}
    lines = (setup.folder / "settings.yaml").read_text().splitlines()
    assert by_key["retries.max_attempts"] == {
        "level": "error",
        "code": "setting",
        "key": "retries.max_attempts",
        "message": "must be at least 1",
        "hint": "",
        "source": f"line {lines.index('  max_attempts: 0') + 1}",
    }


async def test_missing_or_unencrypted_operator_passwords_are_reported(setup: DoctorSetup) -> None:
    absent = str(setup.folder / "absent")
    setup.settings["admin"] = {
        "address": f"0.0.0.0:{free_port()}",
        "operators": [{"name": "dilnoza", "password_file": absent}],
    }
    code, text = await setup.doctor()
    assert code == 1
    assert f"secret admin.operators[0].password: {absent}: no such file" in text
    assert "operators: dilnoza may decide about queued writes" in text
    assert "setting admin.address: is reachable from other machines, without TLS: pass" in text


async def test_a_secret_file_readable_by_others_is_an_error(setup: DoctorSetup) -> None:
    setup.secret.chmod(0o644)
    failed = await setup.failed()
    assert list(failed) == ["secret credentials.default.client_secret"]
    assert f"chmod 0600 {setup.secret}" in next(iter(failed.values()))


async def test_an_unusable_audit_folder_is_reported(setup: DoctorSetup) -> None:
    folder = setup.folder / "logs"
    setup.settings["audit"] = {"sink": "file", "path": str(folder / "audit.jsonl")}
    failed = await setup.failed()
    assert list(failed) == ["audit audit.path"]
    assert f"{folder} does not exist" in failed["audit audit.path"]
    assert "install -d" in failed["audit audit.path"]
    folder.write_text("")
    assert f"{folder} is not a folder" in (await setup.failed())["audit audit.path"]
    folder.unlink()
    folder.mkdir()
    assert await setup.failed() == {}
    assert list(folder.iterdir()) == []


async def test_an_audit_folder_that_only_root_can_write_is_reported(setup: DoctorSetup) -> None:
    folder = setup.folder / "logs"
    folder.mkdir(mode=0o555)
    setup.settings["audit"] = {"sink": "file", "path": str(folder / "audit.jsonl")}
    (finding,) = [each for each in await setup.findings() if each["code"] == "audit"]
    level, problem, hint = (
        ("warning", "belongs to root, who can write there", "The gateway's user must be able to")
        if os.geteuid() == 0
        else ("error", "cannot be written", "Its owner must be the gateway's user")
    )
    assert (finding["level"], finding["message"]) == (level, f"{folder} {problem}")
    assert finding["hint"].startswith(hint)
    assert finding["hint"].endswith(f": chown USER {folder}")


async def test_root_is_shown_the_files_that_only_root_may_read(setup: DoctorSetup) -> None:
    findings = await setup.findings()
    files = [(each["level"], each["message"]) for each in findings if each["code"] == "files"]
    warning = ("warning", f"run as root; only root may read {setup.secret}")
    assert files == ([warning] if os.geteuid() == 0 else [])


async def test_a_port_in_use_is_reported(setup: DoctorSetup) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        setup.settings["listen"]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = await setup.failed()
    assert list(failed) == ["listener listen.address"]
    assert "in use" in failed["listener listen.address"]


@pytest.fixture
async def running(setup: DoctorSetup) -> AsyncIterator[GatewayProcess]:
    setup.settings["shutdown"] = {"delay": 0}
    gateway = start_gateway(setup.settings, setup.folder)
    for key, url in (("listen", gateway.url), ("admin", gateway.admin_url)):
        setup.settings[key]["address"] = urlsplit(url).netloc
    try:
        await gateway.wait_for_status(200)
        yield gateway
    finally:
        await asyncio.to_thread(gateway.process.terminate)


@pytest.mark.usefixtures("running")
async def test_ports_of_the_running_gateway_pass(setup: DoctorSetup) -> None:
    # systemd gives a service copies of its secret files (LoadCredential), with other paths.
    copy = setup.folder / "copy"
    copy.write_text(SECRET)
    copy.chmod(0o600)
    setup.settings["credentials"]["default"]["client_secret_file"] = str(copy)
    found = [each for each in await setup.findings() if each["code"] == "listener"]
    assert [(each["level"], each["message"], each["hint"]) for each in found] == [
        ("ok", f"{setup.settings[key]['address']} is in use by the running gateway", "")
        for key in ("listen", "admin")
    ]


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
async def test_ports_of_a_gateway_with_other_settings_are_errors(
    setup: DoctorSetup, section: str, change: dict[str, Any], keys: str
) -> None:
    """Another gateway has both ports: `run` would not start."""
    setup.settings[section] = {**setup.settings[section], **change}
    failed = await setup.failed()
    for key in ("listen.address", "admin.address"):
        message = failed[f"listener {key}"]
        assert "is in use by another gateway" in message
        assert f"It runs with other settings: {keys}." in message
        assert f"Otherwise change {key}" in message


@pytest.mark.usefixtures("running")
async def test_a_shared_admin_port_of_two_gateways_is_an_error(setup: DoctorSetup) -> None:
    """A port of operators that two gateways would share is a fault of the second."""
    setup.settings["listen"]["address"] = f"127.0.0.1:{free_port()}"
    failed = await setup.failed()
    assert list(failed) == ["listener admin.address"]
    assert "It runs with other settings: listen.address." in failed["listener admin.address"]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        setup.settings["listen"]["address"] = f"127.0.0.1:{taken.getsockname()[1]}"
        failed = await setup.failed()
    assert list(failed) == ["listener listen.address", "listener admin.address"]
    assert "Another program" in failed["listener listen.address"]


@pytest.mark.parametrize("shares", [True, False])
async def test_a_port_shared_with_a_replica_passes_with_reuse_port_only(
    setup: DoctorSetup, shares: bool
) -> None:
    with socket.socket() as replica:
        share_port(replica)
        replica.bind(("127.0.0.1", 0))
        replica.listen()
        address = f"127.0.0.1:{replica.getsockname()[1]}"
        setup.settings["listen"] = {"address": address, "reuse_port": shares}
        failed = await setup.failed()
    assert list(failed) == ([] if shares else ["listener listen.address"])


@pytest.mark.usefixtures("running")
async def test_settings_in_lists_are_named_with_brackets(setup: DoctorSetup) -> None:
    setup.settings["callers"] = [{"name": "lab", "networks": ["127.0.0.0/8"]}]
    _, text = await setup.doctor()
    assert "yet: callers[0].name, callers[0].networks, " in text
    assert "callers.0" not in text


@pytest.mark.usefixtures("running")
async def test_settings_that_need_a_restart_are_warnings(setup: DoctorSetup) -> None:
    setup.settings["limits"] = {"max_concurrent_requests": 7}
    code, text = await setup.doctor()
    assert code == 0
    hint = "It does not run with these settings yet: limits.max_concurrent_requests. Restart it"
    for key in ("listen.address", "admin.address"):
        address = setup.settings[key.partition(".")[0]]["address"]
        assert f"warning listener {key}: {address} is in use by the running gateway. {hint}" in (
            text.splitlines()
        )
    levels = {each["level"] for each in await setup.findings() if each["code"] == "listener"}
    assert levels == {"warning"}


@pytest.mark.parametrize("body", [{"ready": True}, {"alive": True}, {"status": "UP"}, "ok"])
async def test_another_web_server_on_the_ports_is_not_taken_for_the_gateway(
    setup: DoctorSetup, aiohttp_raw_server: AiohttpRawServer, body: object
) -> None:
    async def answer(_: web.BaseRequest) -> web.Response:
        return web.json_response(body, headers={"Server": "nginx"})

    for section in ("listen", "admin"):
        server = await aiohttp_raw_server(answer)
        setup.settings[section]["address"] = f"127.0.0.1:{server.port}"
    failed = await setup.failed()
    assert set(failed) == {"listener listen.address", "listener admin.address"}
    assert all("Another program listens there" in message for message in failed.values())


async def test_a_unix_socket_in_use_is_an_error_and_a_stale_one_is_not(setup: DoctorSetup) -> None:
    path = setup.folder / "gateway.sock"
    setup.settings["listen"]["address"] = f"unix:{path}"
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(path))
        taken.listen()
        failed = await setup.failed()
    assert "another process listens there" in failed["listener listen.address"]
    assert await setup.failed() == {}
    assert path.exists()


@pytest.mark.parametrize(
    ("url", "check", "words"),
    [
        ("https://platform.invalid/fhir", "platform DNS", "platform.fhir_base_url"),
        ("https://127.0.0.1:{}/r5", "platform TLS", "there is no TLS on this port"),
    ],
    ids=["unknown name", "port without TLS"],
)
async def test_an_unreachable_platform_fails_at_its_step(
    setup: DoctorSetup, platform: Platform, url: str, check: str, words: str
) -> None:
    setup.settings["platform"]["fhir_base_url"] = url.format(platform.port)
    failed = await setup.failed()
    assert list(failed) == [check]
    assert words in failed[check]


async def test_each_reason_for_skipping_is_printed_once(setup: DoctorSetup) -> None:
    credentials = setup.settings["credentials"]
    credentials["lab"] = credentials["default"]
    setup.settings["callers"] = [
        {"name": name, "networks": [f"10.0.{number}.0/24"], "credential": name}
        for number, name in enumerate(credentials)
    ]
    setup.settings["platform"]["fhir_base_url"] = f"http://127.0.0.1:{free_port()}/fhir"
    setup.settings["sso"]["token_url"] = f"http://127.0.0.1:{free_port()}/token"
    code, text = await setup.doctor()
    assert code == 1
    skipped = [line for line in text.splitlines() if "not tested: no connection" in line]
    assert skipped == [
        "skipped token default, token lab: not tested: no connection to the SSO",
        "skipped clock, platform metadata: not tested: no connection to the platform",
    ]
    codes = Counter(
        finding["code"]
        for finding in await setup.findings()
        if finding["message"].startswith("not tested: no connection")
    )
    assert codes == {"token": 2, "clock": 1, "platform-metadata": 1}


PAST = {"not_after": datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)}


@pytest.mark.parametrize(
    ("name", "options", "is_trusted", "words"),
    [
        ("localhost", {}, True, []),
        ("localhost", {}, False, ["not trusted", "platform.ca_file"]),
        ("other.example", {}, True, ["another host"]),
        ("localhost", PAST, True, ["not valid at this time"]),
    ],
    ids=["valid", "of an unknown CA", "of another name", "expired"],
)
async def test_an_invalid_certificate_of_the_platform_is_reported(
    setup: DoctorSetup, name: str, options: dict[str, Any], is_trusted: bool, words: list[str]
) -> None:
    context, authority = tls_platform(name, **options)
    async with Platform(tls=context) as double:
        double.respond(fhir(STATEMENT))
        setup.settings["platform"]["fhir_base_url"] = double.url
        if is_trusted:
            authority.cert_pem.write_to_path(setup.folder / "ca.pem")
            setup.settings["platform"]["ca_file"] = str(setup.folder / "ca.pem")
        failed = await setup.failed()
    assert list(failed) == (["platform TLS"] if words else [])
    assert all(each in failed["platform TLS"] for each in words)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-600, "10 min ahead of"), (10799, "3 h behind")],
    ids=["ahead", "behind"],
)
async def test_a_clock_difference_is_reported(
    setup: DoctorSetup, platform: Platform, seconds: int, words: str
) -> None:
    date = formatdate(datetime.datetime.now(datetime.UTC).timestamp() + seconds, usegmt=True)
    platform.respond(fhir(STATEMENT, 200, ("Date", date)))
    failed = await setup.failed()
    assert list(failed) == ["clock"]
    assert f"this machine's clock is {words} the platform's" in failed["clock"]


@pytest.mark.parametrize("year", ["x", "9" * 20])
async def test_an_invalid_date_is_not_compared_with_the_clock(
    setup: DoctorSetup, platform: Platform, year: str
) -> None:
    date = f"Thu, 03 Dec {year} 12:00:00 GMT"
    platform.respond(fhir(STATEMENT, 200, ("Date", date)))
    levels = {each["code"]: each["level"] for each in await setup.findings()}
    assert (levels["clock"], levels["platform-metadata"]) == ("skipped", "ok")


async def test_a_base_url_without_a_capability_statement_is_reported(
    setup: DoctorSetup, platform: Platform
) -> None:
    platform.respond(http(404, b"<html>", ("Content-Type", "text/html")))
    failed = await setup.failed()
    assert list(failed) == ["platform metadata"]
    assert "platform.fhir_base_url" in failed["platform metadata"]


async def test_a_statement_without_end_is_not_read(setup: DoctorSetup, platform: Platform) -> None:
    """A body of more than 16 MiB is no CapabilityStatement, and not read to its end."""
    endless = STATEMENT[:-1] + b',"name":"' + b"x" * (17 * 1024 * 1024) + b'"}'
    platform.respond(fhir(endless, 200, ("Date", formatdate(usegmt=True))))
    failed = await setup.failed()
    assert list(failed) == ["platform metadata"]
    assert "no FHIR server" in failed["platform metadata"]


@pytest.mark.parametrize("version", ["4.0.1", "4.3.0", "3.0.2", "6.0.0-ballot2"])
@pytest.mark.parametrize("environment", ["custom", "dhp-playground", "production"])
async def test_another_fhir_version_is_reported(
    setup: DoctorSetup, platform: Platform, environment: str, version: str
) -> None:
    statement = {"resourceType": "CapabilityStatement", "fhirVersion": version}
    platform.respond(fhir(json.dumps(statement).encode()))
    setup.settings["environment"] = environment
    (found,) = [each for each in await setup.findings() if each["code"] == "platform-metadata"]
    assert found["message"] == f"FHIR {version}"
    assert found["hint"] == "This is not an R5 server"
    assert found["level"] == ("warning" if environment == "custom" else "error")


async def test_a_token_rejected_by_the_platform_suggests_mixed_environments(
    setup: DoctorSetup, platform: Platform
) -> None:
    async def refuse(connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        connection.writer.write(outcome(401))

    platform.respond(refuse)
    failed = await setup.failed()
    assert "same environment" in failed["platform metadata"]


async def test_it_says_whom_to_call_and_where_the_runbook_is(setup: DoctorSetup) -> None:
    """On the last lines, which the operator reads first after a failure."""
    runbook = "https://intranet.example/runbook/"
    setup.settings["admin"] |= {"contact": "Дежурный, +998 71 200 00 00", "runbook_url": runbook}
    setup.secret.unlink()
    code, text = await setup.doctor("--lang", "ru")
    assert code == 1
    *_, contact, link, _ = text.splitlines()
    assert contact == "норма   кому звонить: Дежурный, +998 71 200 00 00"
    assert link == f"норма   инструкция для дежурных: {runbook}"


@pytest.mark.parametrize("contact", ["Duty " * 41, "Duty\n+998 71 200 00 00", " "])
async def test_a_contact_is_one_short_line(setup: DoctorSetup, contact: str) -> None:
    setup.settings["admin"]["contact"] = contact
    code, text = await setup.run("check")
    assert code == 2
    assert text.startswith("admin.contact: ")
    setup.settings["admin"]["contact"] = "Duty " * 40
    assert (await setup.run("check"))[0] == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        # As Squid 5.7 answers to CONNECT: an ACL, a host that refuses connections, a password.
        (b"HTTP/1.1 403 Forbidden", "the proxy's administrator to allow the host"),
        (b"HTTP/1.1 503 Service Unavailable", "the proxy cannot reach the server (status 503)"),
        (b"HTTP/1.1 407 Proxy Authentication Required", "the proxy requires a password"),
    ],
)
async def test_a_proxy_without_a_tunnel_is_not_taken_for_the_platform(
    setup: DoctorSetup, line: bytes, words: str
) -> None:
    async with ConnectProxy(response=line + b"\r\nContent-Length: 0\r\n\r\n") as proxy:
        setup.settings["platform"]["fhir_base_url"] = "https://fhir.hospital.test/r5"
        setup.settings["platform"]["proxy_url"] = proxy.url
        text = (await setup.failed())["platform metadata"]
    assert words in text
    assert "platform's support" not in text
