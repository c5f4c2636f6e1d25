"""The console script, run as operators run it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from pytest_aiohttp import AiohttpServer

from gateway import __version__
from tests.doubles import sso as answers
from tests.doubles.command import SECRET, Result, dhp
from tests.doubles.gateway import running_gateway
from tests.doubles.processes import GATEWAY_COMMAND, free_port, start
from tests.doubles.sso import Sso
from tests.doubles.waiting import wait_until

Operators = Callable[..., Awaitable[int]]
PLAIN: dict[str, Any] = {
    "environment": "dhp-playground",
    "credentials": {"default": {"client_id": "a", "client_secret": SECRET}},
}


def write(tmp_path: Path, settings: Mapping[str, Any]) -> Path:
    file, secret = tmp_path / "gateway.yaml", tmp_path / "secret-of-all"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    credentials = {"default": {"client_id": "a", "client_secret_file": str(secret)}}
    file.write_text(yaml.safe_dump({**PLAIN, "credentials": credentials, **settings}))
    return file


def custom(sso: Sso, **more: Any) -> dict[str, Any]:
    """Settings that lead to an SSO double, and to a platform that is not there."""
    return {
        "environment": "custom",
        "platform": {"fhir_base_url": "http://127.0.0.1:1/fhir"},
        "sso": {"token_url": sso.token_url, "timeout": 5},
        **more,
    }


async def test_the_version_is_printed() -> None:
    assert await dhp("--version") == Result(0, f"dhp-gateway {__version__}\n", "")


async def test_check_accepts_good_settings(tmp_path: Path) -> None:
    result = await dhp("check", "--config", write(tmp_path, {}))
    assert (result.code, result.err, result.out.count("\n")) == (0, "", 1)
    assert "https://playground.dhp.uz/fhir" in result.out


COMMANDS = ["check", "doctor", "token", "healthcheck", "run", "outbox list"]


@pytest.mark.parametrize("command", COMMANDS)
async def test_every_command_prints_which_settings_file_it_found(
    tmp_path: Path, command: str
) -> None:
    (tmp_path / "etc").mkdir()
    first, second = tmp_path / "etc" / "gateway.yaml", write(tmp_path, {})
    first.write_text(yaml.safe_dump({**PLAIN, "log": {"level": "x"}}))
    places = [first, "gateway.yaml"]
    result = await dhp(*command.split(), places=places, folder=tmp_path)
    line = f"settings: {first} (found as {first})"
    assert result.err.splitlines().count(line) == 1
    assert "settings" not in result.out
    first.unlink()
    here = f"settings: {second} (found as ./gateway.yaml)"
    result = await dhp("check", places=places, folder=tmp_path)
    assert (result.code, result.err) == (0, f"{here}\n")
    named = await dhp("check", "--config", second, places=places, folder=tmp_path)
    assert (named.code, named.err) == (0, "")


@pytest.mark.parametrize("command", COMMANDS)
async def test_without_a_settings_file_the_search_paths_are_printed(
    tmp_path: Path, command: str
) -> None:
    result = await dhp(*command.split(), places=[tmp_path / "a.yaml", "b.yaml"], folder=tmp_path)
    if command == "healthcheck":  # Needs no settings: the address has a default.
        assert f"no file at {tmp_path / 'a.yaml'} or ./b.yaml" in result.err
        return
    assert result.code == 2
    told = result.out + result.err
    assert told.startswith("no settings file: use --config FILE. ")
    assert f"No file at {tmp_path / 'a.yaml'} or ./b.yaml" in told
    assert told.count("\n") == 1


async def test_variables_alone_are_complete_settings(tmp_path: Path) -> None:
    environ = {"DHP_GATEWAY_ENVIRONMENT": "dhp-playground",
               "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "a",
               "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET": SECRET}  # fmt: skip
    result = await dhp("check", places=["gateway.yaml"], folder=tmp_path, environ=environ)
    assert result.code == 0
    assert result.err == "settings: variables alone (no file at ./gateway.yaml)\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'"s3cret-in-quotes"\n', "is in quotation marks"),
        (b"s3cret \n", "begins or ends with a blank"),
        ("s3cret\u200b".encode(), "begins or ends with a blank"),
        (b"your-client-secret", "is still the example's placeholder"),
        (b"s3c\xffret", "is not UTF-8 text"),
        ("\ufeffs3cret\r\n".encode("utf-16-le"), None),
        (b"\xef\xbb\xbfs3cret\r\n", None),
    ],
)
async def test_check_reports_quotes_blanks_and_placeholders_of_a_secret(
    tmp_path: Path, content: bytes, words: str | None
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    credential = {"client_id": "a", "client_secret_file": str(file)}
    settings = write(tmp_path, {"credentials": {"default": credential}})
    result = await dhp("check", "--config", settings)
    assert "s3c" not in result.out
    if words is None:
        assert result.code == 0, result.out
        return
    assert result.code == 2
    assert result.out.startswith(f"credentials.default.client_secret_file: {file}: {words}")
    assert result.out.count("\n") == 1


async def test_check_reports_quotes_in_a_variable(tmp_path: Path) -> None:
    environ = {"DHP_GATEWAY_ENVIRONMENT": "dhp-playground",
               "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "a",
               "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET": f'"{SECRET}"'}  # fmt: skip
    result = await dhp("check", places=[], folder=tmp_path, environ=environ)
    assert result.code == 2
    assert "credentials.default.client_secret: is in quotation marks" in result.out


async def test_check_opens_no_connection(tmp_path: Path) -> None:
    connections: list[object] = []
    server = await asyncio.start_server(lambda r, w: connections.append(w), "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = {
        "environment": "custom",
        "platform": {"fhir_base_url": url},
        "sso": {"token_url": f"{url}/token"},
    }
    result = await dhp("check", "--config", write(tmp_path, settings))
    server.close()
    await server.wait_closed()
    assert (result.code, connections) == (0, [])


async def test_schema_prints_a_json_schema() -> None:
    result = await dhp("schema")
    assert result.code == 0
    assert json.loads(result.out)["$schema"].endswith("2020-12/schema")


@pytest.mark.parametrize(
    "listeners", [("listen",), ("admin",), ("listen", "admin")], ids=["callers", "operators", "all"]
)
async def test_run_reports_every_port_in_use(tmp_path: Path, listeners: tuple[str, ...]) -> None:
    settings = {"listen": {"address": "127.0.0.1:0"}, "admin": {"address": "127.0.0.1:0"}}
    async with Sso() as sso, contextlib.AsyncExitStack() as taken:
        for each in listeners:
            server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
            await taken.enter_async_context(server)
            settings[each] = {"address": f"127.0.0.1:{server.sockets[0].getsockname()[1]}"}
        result = await dhp("run", "--config", write(tmp_path, custom(sso, **settings)))
        assert sso.requests == []
    assert result.code == 3
    told = [each for each in result.err.splitlines() if each.startswith("dhp-gateway: ")]
    for each, line in zip(listeners, told, strict=True):
        address = settings[each]["address"]
        assert line.startswith(
            f"dhp-gateway: could not start: {each}.address: cannot listen on {address}: "
        )
        assert f"DHP_GATEWAY_{each.upper()}__ADDRESS" in line


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [
        (["run", "--config", "{}"], {}),
        (["run", "--config={}"], {}),
        (["run"], {"DHP_GATEWAY_CONFIG": "{}"}),
    ],
)
async def test_run_reads_the_named_settings_file(
    tmp_path: Path, arguments: list[str], environ: dict[str, str]
) -> None:
    file = str(write(tmp_path, {"log": {"level": "x"}}))
    result = await dhp(
        *(each.format(file) for each in arguments),
        environ={name: value.format(file) for name, value in environ.items()},
    )
    assert (result.code, result.out) == (2, "")
    *before, problem = result.err.splitlines()
    assert problem.startswith("log.level: ")
    assert before == ([f"settings: {file} (DHP_GATEWAY_CONFIG)"] if environ else [])


@pytest.mark.parametrize("command", ["run", "token"])
async def test_an_unreadable_secret_is_reported(tmp_path: Path, command: str) -> None:
    missing = str(tmp_path / "none")
    credential = {"client_id": "a", "client_secret_file": missing}
    free = {"listen": {"address": "127.0.0.1:0"}, "admin": {"address": "127.0.0.1:0"}}
    async with Sso() as sso:
        file = write(tmp_path, {**custom(sso, **free), "credentials": {"default": credential}})
        result = await dhp(command, "--config", file)
        assert sso.requests == []
    assert result.code == 3
    assert f"credentials.default.client_secret_file: {missing}: no such file" in result.err


async def test_run_logs_its_settings_file_and_a_secret_readable_by_others(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    async with Sso() as sso:
        settings = custom(
            sso,
            listen={"address": "127.0.0.1:0"},
            admin={"address": "127.0.0.1:0"},
            credentials={"default": {"client_id": "a", "client_secret_file": str(secret)}},
        )
        file = write(tmp_path, settings)
        variable = {"DHP_GATEWAY_CONFIG": str(file)}
        process = start([GATEWAY_COMMAND, "run"], tmp_path, environment=variable)
        try:
            await wait_until(lambda: "serving" in process.stderr)
            process.popen.send_signal(signal.SIGHUP)
            await wait_until(lambda: "settings reloaded" in process.stderr)
        finally:
            assert process.terminate() == 0
    lines = [json.loads(line) for line in process.stderr.splitlines()]
    by = f"{file} (DHP_GATEWAY_CONFIG)"
    assert lines[0]["event"] == f"settings: {by}"
    [warning] = [each for each in lines[:3] if each["level"] == "warning"]
    assert warning["event"] == (
        f"credentials.default.client_secret_file: {secret} can be read by others "
        f"(mode 0644). Run: chmod 0600 {secret}."
    )
    assert warning["key"] == "credentials.default.client_secret_file"
    [reloaded] = [each for each in lines if each["event"] == "settings reloaded"]
    assert reloaded["settings"] == by
    assert SECRET not in process.stderr


async def test_run_serves_until_sigterm(tmp_path: Path) -> None:
    async with Sso() as sso:
        admin = f"127.0.0.1:{free_port()}"
        settings = custom(
            sso, listen={"address": "127.0.0.1:0"}, admin={"address": admin}, shutdown={"delay": 0}
        )
        file = write(tmp_path, settings)
        process = start([GATEWAY_COMMAND, "run", "--config", file], tmp_path)
        result = await dhp("healthcheck", "--config", file)
        while result.code != 0:
            assert not process.ended, process.stderr
            result = await dhp("healthcheck", "--config", file)
        code = await asyncio.to_thread(process.terminate)
    assert (code, result.out) == (0, "ready\n")
    assert "/fhir leads to http://127.0.0.1:1/fhir; serving" in process.stderr
    assert all(json.loads(line)["event"] for line in process.stdout.splitlines())
    assert SECRET not in process.stdout + process.stderr


async def test_commands_load_only_what_they_need() -> None:
    code = (
        "import sys, gateway.cli.main, gateway.config;"
        "print([m for m in ('aiohttp', 'structlog', 'yarl') if m in sys.modules])"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE
    )
    assert (await process.communicate())[0] == b"[]\n"


async def test_token_prints_the_token_with_show_only(tmp_path: Path) -> None:
    async with Sso() as sso:
        sso.respond(answers.token("t0ken-value", expires_in=1800, scope="system/*.rs"))
        file = write(tmp_path, custom(sso))
        result = await dhp("token", "--config", file)
        shown = await dhp("token", "--show", "--config", file)
        forms = [request.form for request in sso.requests]
    assert result.code == 0
    facts = dict(line.split(": ", 1) for line in result.out.splitlines())
    assert list(facts) == ["type", "lifetime", "expiry", "scope"]
    assert facts["lifetime"].startswith("30 min (")
    assert facts["scope"] == "system/*.rs"
    assert "t0ken-value" not in result.out + result.err
    assert shown.out.splitlines()[-1] == "token: t0ken-value"
    assert forms[0] == {
        "grant_type": "client_credentials",
        "client_id": "a",
        "client_secret": SECRET,
    }


async def test_token_of_a_named_credential(tmp_path: Path) -> None:
    lab = {"client_id": "lab", "client_secret": SECRET}
    async with Sso() as sso:
        file = write(tmp_path, {**custom(sso), "credentials": {**PLAIN["credentials"], "lab": lab}})
        result = await dhp("token", "--credential", "lab", "--config", file)
        unknown = await dhp("token", "--credential", "labb", "--config", file)
        asked = [request.form["client_id"] for request in sso.requests]
    assert (result.code, asked) == (0, ["lab"])
    assert unknown.code == 2
    assert "known: default, lab" in unknown.err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (answers.oauth_error("invalid_client", 401), "check client_id and client secret"),
        (
            answers.oauth_error(SECRET),
            "the token request is refused (status 400, with an error code that "
            "OAuth does not define)",
        ),
        (
            answers.status(429, ("Retry-After", "7")),
            "too many requests (status 429): try again in 7 s",
        ),
        (answers.status(404), "it answers with an error (status 404): check sso.token_url"),
        (answers.json_body([SECRET]), "gave no token"),
        (answers.RESET, "broke"),
    ],
)
async def test_each_failure_of_a_token_request_is_explained(
    tmp_path: Path, answer: answers.ScriptedResponse, words: str
) -> None:
    async with Sso() as sso:
        sso.respond(answer)
        result = await dhp("token", "--config", write(tmp_path, custom(sso)))
    assert (result.code, result.out, result.err.count("\n")) == (1, "", 1)
    assert words in result.err


async def test_an_unreachable_and_a_slow_sso_are_told_apart(tmp_path: Path) -> None:
    async with Sso() as sso:
        sso.hold()
        slow = custom(sso)
        slow["sso"]["timeout"] = 0.2
        result = await dhp("token", "--config", write(tmp_path, slow))
        sso.release()
    assert "no response in time (0.2 s)" in result.err
    gone = await dhp("token", "--config", write(tmp_path, custom(sso)))
    assert (result.code, gone.code) == (1, 1)
    assert "nothing listens there" in gone.err


@pytest.fixture
def operators(aiohttp_server: AiohttpServer) -> Operators:
    """Return a function that starts an admin listener with a response of /readyz."""

    async def start(status: int, body: object, server: str = "dhp-gateway") -> int:
        async def readyz(_: web.Request) -> web.Response:
            return web.json_response(body, status=status, headers={"Server": server})

        application = web.Application()
        application.router.add_get("/readyz", readyz)
        port: int | None = (await aiohttp_server(application, host="0.0.0.0")).port
        assert port is not None
        return port

    return start


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
async def test_healthcheck_of_a_ready_gateway(
    tmp_path: Path, operators: Operators, host: str
) -> None:
    port = await operators(200, {"ready": True})
    file = write(tmp_path, {"admin": {"address": f"{host}:{port}"}})
    assert await dhp("healthcheck", "--config", file) == Result(0, "ready\n", "")


async def test_healthcheck_over_a_unix_socket(tmp_path: Path) -> None:
    admin = {"address": f"unix:{tmp_path}/admin.sock"}
    file = write(tmp_path, {"admin": admin})
    async with Sso() as sso, running_gateway("http://127.0.0.1:1/fhir", sso.token_url, admin=admin):
        while (await dhp("healthcheck", "--config", file)).code != 0:
            pass
    gone = await dhp("healthcheck", "--config", file)
    assert gone.code == 1


async def test_healthcheck_needs_no_valid_settings(tmp_path: Path, operators: Operators) -> None:
    file = tmp_path / "broken.yaml"
    port = await operators(200, {"ready": True})
    file.write_text(f"admin: {{address: '127.0.0.1:{port}'}}\nlog: {{level: loud}}\n")
    wrong = await dhp("healthcheck", "--config", file)
    environ = {"DHP_GATEWAY_ADMIN__ADDRESS": f"127.0.0.1:{port}"}
    bare = await dhp("healthcheck", environ=environ, places=[])
    assert wrong == Result(0, "ready\n", "")
    assert (bare.code, bare.out) == (0, "ready\n")


async def test_healthcheck_says_that_it_cannot_read_the_file(
    tmp_path: Path, operators: Operators
) -> None:
    file = tmp_path / "broken.yaml"
    missing = await dhp("healthcheck", "--config", file)
    port = await operators(200, {"ready": True})
    file.write_text(f"admin: {{address: '127.0.0.1:{port}'}}\nlog: {{level: [\n")
    broken = await dhp("healthcheck", "--config", file)
    assert (missing.code, broken.code) == (2, 2)
    assert f"{file}: cannot be read" in missing.err
    assert f"{file}: is not valid YAML" in broken.err


@pytest.mark.parametrize(
    ("status", "body", "server", "said"),
    [
        (503, {"failing": ["token:default", "circuit"]}, "dhp-gateway", "token:default, circuit"),
        *[
            (200, body, "nginx", "another program answers on {}")
            for body in ({"ready": True}, {"status": "UP"}, [], "ok")
        ],
    ],
)
async def test_healthcheck_prints_why_it_fails(
    *, tmp_path: Path, operators: Operators, status: int, body: object, server: str, said: str
) -> None:
    address = f"127.0.0.1:{await operators(status, body, server)}"
    file = write(tmp_path, {"admin": {"address": address}})
    result = await dhp("healthcheck", "--config", file)
    assert result == Result(1, "", f"dhp-gateway: not ready: {said.format(address)}\n")


async def test_healthcheck_of_another_program_or_no_listener_fails(tmp_path: Path) -> None:
    def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.clinic.uz ESMTP\r\n")
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    file = write(tmp_path, {"admin": {"address": f"127.0.0.1:{port}"}})
    mail = await dhp("healthcheck", "--config", file)
    server.close()
    file = write(tmp_path, {"admin": {"address": f"127.0.0.1:{free_port()}"}})
    nobody = await dhp("healthcheck", "--config", file)
    assert (mail.code, nobody.code) == (1, 1)
    assert "connection refused" in nobody.err
