"""The command `dhp-gateway sandbox`."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from gateway.config.loader import load_settings
from gateway.sandbox.options import SandboxOptions
from tests.doubles.command import dhp
from tests.doubles.processes import GATEWAY_COMMAND, REPOSITORY, Process, free_port, start

ANY_PORT = ("--port", "0", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")


@asynccontextmanager
async def sandbox(
    directory: Path,
    *arguments: str,
    ports: Sequence[str] = ANY_PORT,
    prefix: Sequence[str | Path] = (),
    **variables: str,
) -> AsyncIterator[Process]:
    """Yield the running command, which must end with code 0 after SIGTERM."""
    command = [*prefix, GATEWAY_COMMAND, "sandbox", *ports, *arguments]
    process = start(command, directory, environment=variables)
    try:
        while "Ctrl-C" not in process.stdout:
            assert not process.ended, process.stderr
            await asyncio.sleep(0.02)
        yield process
    finally:
        code = await asyncio.to_thread(process.terminate)
    assert code == 0
    assert "Traceback" not in process.stderr


def printed_value(process: Process, what: str) -> str:
    found = re.search(rf"^ *{re.escape(what)}.* (\S+)$", process.stdout, re.MULTILINE)
    assert found is not None, process.stdout
    return found[1]


async def last_exchange(file: str) -> dict[str, object]:
    """The newest record of an audit file, once that is one of a request."""
    record: dict[str, object] = {}
    while record.get("event") != "exchange":
        command = ("tail", "-n", "1", file)
        shown = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        line, _ = await shown.communicate()
        record = json.loads(line) if line.endswith(b"\n") else {}
    return record


async def get(url: str, **headers: str) -> tuple[int, dict[str, object]]:
    async with aiohttp.request("GET", url, headers=headers) as answer:
        return answer.status, await answer.json(content_type=None)


async def test_the_printed_curl_line_reads_a_patient_that_the_printed_audit_file_records(
    tmp_path: Path,
) -> None:
    async with sandbox(tmp_path) as process:
        line = next(line for line in process.stdout.splitlines() if "curl" in line)
        command, url = shlex.split(line)
        status, patient = await get(url)
        refused, _ = await get(printed_value(process, "Platform") + "/Patient")
        file = Path(printed_value(process, "Audit"))
        assert f"  tail -n 1 {file}\n" in process.stdout
        record = await last_exchange(str(file))
        verified = await dhp("audit", "verify", str(file))
    assert command == "curl"
    assert (status, patient["resourceType"], refused) == (200, "Patient", 401)
    assert (record["interaction"], record["resource"]) == ("read", "Patient")
    assert (record["status"], record["outcome"]) == (200, "success")
    assert verified.code == 0
    assert not file.parent.exists()
    for page in ("quick-start", "quick-start.ru", "quick-start.uz"):
        text = (REPOSITORY / "docs" / f"{page}.md").read_text("utf-8")
        (shown,) = re.findall(
            r"^```json\n(\{\"event\":\"exchange\"[^`]*)\n```$", text, re.MULTILINE
        )
        assert json.loads(shown).keys() == record.keys(), page
        assert json.loads(shown)["resource_id"] == record["resource_id"]


@pytest.mark.parametrize("is_installed", [True, False], ids=["with", "without"])
async def test_without_the_models_it_says_that_it_does_not_validate(
    tmp_path: Path, is_installed: bool
) -> None:
    """In one line, at the start."""
    folder = tmp_path / "packages"
    if not is_installed:
        (folder / "fhir").mkdir(parents=True)
        (folder / "fhir" / "__init__.py").touch()
    async with sandbox(tmp_path, PYTHONPATH=str(folder)) as process:
        lines = [line for line in process.stdout.splitlines() if "dhp-gateway[sandbox]" in line]
    assert len(lines) == (not is_installed)


async def test_variables_set_the_listeners(tmp_path: Path) -> None:
    port = free_port()
    places = {"DHP_SANDBOX_LISTEN": f"0.0.0.0:{port}", "DHP_SANDBOX_ADMIN": "0.0.0.0:0"}
    async with sandbox(tmp_path, ports=("--port", "0"), **places) as process:
        assert f"curl http://127.0.0.1:{port}/fhir/Patient/" in process.stdout
        status, _ = await get(f"http://127.0.0.2:{port}/fhir/Patient")
    assert status == 200


@pytest.mark.parametrize(("options", "second"), [((), 201), (("--lenient",), 200)])
async def test_if_none_exist_is_applied_with_lenient_only(
    tmp_path: Path, options: tuple[str, ...], second: int
) -> None:
    body = {"resourceType": "Patient", "identifier": [{"system": "urn:s", "value": "v"}]}
    headers = {"Content-Type": "application/fhir+json", "If-None-Exist": "identifier=urn:s|v"}
    statuses = []
    async with sandbox(tmp_path, *options) as process, aiohttp.ClientSession() as session:
        url = f"{printed_value(process, 'Gateway')}/Patient"
        for _ in range(2):
            async with session.post(url, data=json.dumps(body), headers=headers) as answer:
                statuses.append(answer.status)
    assert statuses == [201, second]


async def test_search_lag_delays_searches(tmp_path: Path) -> None:
    body = json.dumps({"resourceType": "Patient", "name": [{"family": "Yangiyev"}]})
    headers = {"Content-Type": "application/fhir+json"}
    async with (
        sandbox(tmp_path, "--search-lag", "600") as process,
        aiohttp.ClientSession() as session,
    ):
        url = f"{printed_value(process, 'Gateway')}/Patient"
        async with session.post(url, data=body, headers=headers) as answer:
            place = answer.headers["Location"].partition("/_history")[0]
        async with session.get(f"{url}?family=Yangiyev") as answer:
            found = await answer.json()
        status, _ = await get(place)
    assert (found["total"], status) == (0, 200)


async def test_the_platform_can_run_alone(tmp_path: Path) -> None:
    async with sandbox(tmp_path, "--platform-only") as process:
        status, _ = await get(printed_value(process, "Platform") + "/Patient")
        token_url = printed_value(process, "SSO token endpoint")
    assert status == 401
    assert token_url.endswith("/oauth/token")
    assert "curl" not in process.stdout


@pytest.mark.parametrize("checkout", [True, False])
async def test_the_printed_command_configures_a_gateway_for_the_platform(
    tmp_path: Path, checkout: bool
) -> None:
    folder = REPOSITORY if checkout else tmp_path
    options = {"ports": ("--port", "0"), "prefix": ("env", "-C", folder)}
    async with sandbox(tmp_path, "--platform-only", **options) as process:  # type: ignore[arg-type]
        line = next(line for line in process.stdout.splitlines() if "dhp-gateway run" in line)
        words = shlex.split(line)
        at = words.index("dhp-gateway")
        file = folder / words[at + 3] if "--config" in words else None
        assert (file is not None) == checkout
        settings = load_settings(file, dict(each.split("=", 1) for each in words[:at]))
        assert settings.platform.fhir_base_url == printed_value(process, "Platform")
        assert settings.sso.token_url == printed_value(process, "SSO token endpoint")
        assert settings.credentials["default"].client_id == SandboxOptions().client_id


async def test_a_fault_reaches_the_caller(tmp_path: Path) -> None:
    async with sandbox(tmp_path, "--fail", "platform=html") as process:
        url = next(line for line in process.stdout.splitlines() if "curl" in line).split()[1]
        status, outcome = await get(url)
    assert status == 502
    assert outcome["resourceType"] == "OperationOutcome"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--fail", "moon=503"), "write sso=… or platform=…"),
        (("--slow", "sso=soon"), "give a duration"),
        (("--token-lifetime", "0"), "at least 1"),
        (("--reject-tokens", "2"), "from 0 to 1"),
        (("--search-lag", "-1"), "give seconds, from 0"),
        (("--search-lag", "nan"), "give seconds, from 0"),
        (("--search-lag", "inf"), "give seconds, from 0"),
        (("--listen", "8080"), "--listen is not an address; write host:port"),
        (("--admin", "8080"), "--admin is not an address; write host:port"),
    ],
)
async def test_an_invalid_option_ends_with_2(arguments: tuple[str, ...], words: str) -> None:
    result = await dhp("sandbox", *ANY_PORT, *arguments)
    assert (result.code, result.err.count("\n")) == (2, 1)
    assert words in result.err


@pytest.mark.parametrize(
    "options",
    [("--port",), ("--listen",), ("--admin",), ("--port", "--listen", "--admin")],
    ids=["platform", "gateway", "operators", "all"],
)
async def test_taken_ports_end_with_3(options: tuple[str, ...]) -> None:
    async with await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0) as taken:
        port = taken.sockets[0].getsockname()[1]
        values = {"--port": str(port)}
        given = [(each, values.get(each, f"127.0.0.1:{port}")) for each in options]
        result = await dhp("sandbox", *ANY_PORT, *(word for pair in given for word in pair))
    assert result.code == 3
    lines = [each for each in result.err.splitlines() if "address already in use" in each]
    for option, line in zip(options, lines, strict=True):
        assert f"127.0.0.1:{port}" in line
        assert line.endswith(f"choose another with {option}")


def test_config_sandbox_matches_the_default_options() -> None:
    settings = load_settings(REPOSITORY / "config" / "sandbox.yaml", {})
    options = SandboxOptions()
    credential = settings.credentials["default"]
    assert settings.platform.fhir_base_url == f"http://127.0.0.1:{options.port}/fhir"
    assert settings.sso.token_url == f"http://127.0.0.1:{options.port}/oauth/token"
    assert credential.client_id == options.client_id
    assert credential.client_secret is not None
    assert credential.client_secret.reveal() == options.client_secret


async def test_the_example_page_reaches_the_gateway(tmp_path: Path) -> None:
    async with sandbox(tmp_path, "--login") as process:
        page_url = next(line for line in process.stdout.splitlines() if "/example" in line).strip()
        gateway_url = printed_value(process, "Gateway").removesuffix("/fhir")
        async with aiohttp.request("GET", page_url) as answer:
            page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
        origin = {"Origin": page_url.removesuffix("/example")}
        async with aiohttp.request("GET", f"{gateway_url}/auth/session", headers=origin) as answer:
            allowed = answer.headers["Access-Control-Allow-Origin"]
        refused, _ = await get(f"{gateway_url}/fhir/Patient")
    assert f'const gateway = "{gateway_url}"' in page
    assert f"tail {printed_value(process, 'Audit')}" in page
    assert f"connect-src {gateway_url};" in policy
    assert (allowed, refused) == (origin["Origin"], 401)
