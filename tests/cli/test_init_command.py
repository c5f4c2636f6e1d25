"""The command `dhp-gateway init` writes settings with which a gateway starts."""

from __future__ import annotations

import asyncio
import itertools
import os
import pty
import select
import stat
import subprocess
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
import yaml

from gateway.cli.init_plan import InitPlan, settings_lines, yaml_text
from gateway.config.loader import load_settings
from gateway.i18n import LANGUAGES, Message
from gateway.sandbox.example_data import PATIENT_ID
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from gateway.secret import Secret
from tests.doubles.command import SECRET, Result, dhp
from tests.doubles.processes import GATEWAY_COMMAND, free_port, start
from tests.extent import left_to_ci

CUT_OFF_KEY = """-----BEGIN PRIVATE KEY-----
MIG2AgEAMBAGByqGSM49AgEGBSuBBAAiBIGeMIGbAgEBBDCoD0M4rgiWEPSZVQUj
-----END PRIVATE KEY-----
"""

TEMPLATE = Path(__file__).parents[2] / "deploy/systemd/gateway.yaml"


@pytest.fixture
async def sandbox() -> AsyncIterator[Sandbox]:
    platform = Sandbox(SandboxOptions(port=0), log=lambda _: None)
    await platform.start()
    yield platform
    await platform.stop()


def free_listeners() -> dict[str, str]:
    return {
        "DHP_GATEWAY_LISTEN__ADDRESS": f"127.0.0.1:{free_port()}",
        "DHP_GATEWAY_ADMIN__ADDRESS": f"127.0.0.1:{free_port()}",
    }


async def init(directory: Path, *arguments: str, secret: str = SECRET, lang: str = "en") -> Result:
    """Run `dhp-gateway init` without a terminal, with a secret in a file."""
    source = directory.with_name("secret-source")
    source.write_text(secret)
    client = ("--client-id", "hospital-17", "--secret-file", str(source))
    common = ("--yes", "--directory", str(directory), "--lang", lang)
    return await dhp("init", *client, *common, *arguments, environ=free_listeners())


def options_for(sandbox: Sandbox) -> Sequence[str]:
    urls = ("--fhir-base-url", sandbox.fhir_base_url, "--token-url", sandbox.token_url)
    return ("--environment", "custom", *urls)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_gateway_starts_with_the_written_settings(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    secret = SandboxOptions().client_secret
    client = ("--client-id", SandboxOptions().client_id)
    result = await init(folder, *options_for(sandbox), *client, "--outbox", secret=secret)
    assert result.code == 0, result.out + result.err
    file = folder / "gateway.yaml"
    assert result.out.splitlines()[-2] == f"  dhp-gateway run --config {file}"
    assert "All is well." in result.out
    environ = free_listeners()
    process = start([GATEWAY_COMMAND, "run", "--config", file], tmp_path, environment=environ)
    address = environ["DHP_GATEWAY_LISTEN__ADDRESS"]
    try:
        await asyncio.to_thread(process.wait_until_listening, int(address.rpartition(":")[2]))
        url = f"http://{address}/fhir/Patient/{PATIENT_ID}"
        async with aiohttp.request("GET", url) as answer:
            assert (answer.status, (await answer.json())["resourceType"]) == (200, "Patient")
    finally:
        await asyncio.to_thread(process.terminate)


async def test_files_are_private_and_settings_are_commented(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    flags = ("--caller", "network", "--network", "10.20.0.0/16", "--audit", "stdout", "--outbox")
    result = await init(folder, *flags, lang="uz")
    assert result.code == 1, "the platform is out of reach"
    secrets = folder / "secrets"
    assert (mode(secrets), mode(folder / "gateway.yaml")) == (0o700, 0o644)
    assert {(each.name, mode(each)) for each in secrets.iterdir()} == {
        ("dhp_client_secret", 0o600),
        ("his_api_key", 0o600),
        ("outbox_key", 0o600),
    }
    assert (secrets / "dhp_client_secret").read_text() == f"{SECRET}\n"
    text = (folder / "gateway.yaml").read_text()
    assert all("  # " in line for line in text.splitlines())
    assert "listen:  # tizimlaringiz shlyuzga murojaat qiladigan manzil" in text
    settings = load_settings(folder / "gateway.yaml", {})
    assert [str(each) for each in settings.callers[0].networks] == ["10.20.0.0/16"]
    assert settings.listen.address.host == "0.0.0.0"
    assert (settings.environment, settings.audit.sink) == ("dhp-playground", "stdout")


async def test_settings_for_a_sidecar_container(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    result = await init(folder, "--caller", "container", "--container", "emr", "--audit", "file")
    assert f"docker compose --project-directory {folder} up --detach" in result.out
    settings = yaml.safe_load((folder / "gateway.yaml").read_text())
    file = settings["credentials"]["default"]["client_secret_file"]
    assert file == "/etc/dhp-gateway/secrets/dhp_client_secret"
    service = yaml.safe_load((folder / "compose.yaml").read_text())["services"]["gateway"]
    owner = (folder / "secrets" / "dhp_client_secret").stat()
    assert service["network_mode"] == "container:emr"
    assert service["user"] == f"{owner.st_uid}:{owner.st_gid}"
    assert service["volumes"] == [".:/etc/dhp-gateway:ro", "./audit:/var/log/dhp-gateway"]


def test_settings_for_a_server_match_the_systemd_unit(tmp_path: Path) -> None:
    plan = InitPlan(
        environment="dhp-playground",
        urls=None,
        client_id="no",
        client_secret_or_key=Secret("a"),
        uses_private_key=False,
        caller_location="network",
        networks=("10.20.0.0/16",),
        audit="file",
        kind="system",
        directory=Path("/etc/dhp-gateway"),
        container="his",
        api_key=Secret("b"),
        outbox_key=Secret("c"),
    )
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml_text(settings_lines(plan)))
    settings = load_settings(file, {})
    assert settings.credentials["default"].client_id == "no"
    assert str(settings.audit.path) == "/var/log/dhp-gateway/audit.jsonl"
    assert str(settings.outbox.url) == "sqlite:////var/lib/dhp-gateway/outbox.db"
    assert {str(each.path): each.for_service for each in plan.secret_files()} == {
        "secrets/dhp_client_secret": False,
        "his_api_key": True,
        "outbox_key": True,
    }


async def test_existing_files_are_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "secrets").mkdir(parents=True)
    secret = folder / "secrets" / "dhp_client_secret"
    secret.write_text("kept")
    result = await init(folder)
    assert (result.code, result.out) == (2, "")
    assert f"{secret}: exists already, and nothing was changed" in result.err
    assert (secret.read_text(), list(folder.iterdir())) == ("kept", [folder / "secrets"])
    (folder / "gateway.yaml").write_text("log: {level: info}\n")
    assert (await init(folder)).code == 2
    assert (folder / "gateway.yaml").read_text() == "log: {level: info}\n"


async def test_the_template_of_an_installation_is_completed(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    (folder / "secrets").mkdir(parents=True)
    (folder / "secrets" / "dhp_client_secret").touch(0o600)
    template = TEMPLATE.read_text()
    (folder / "gateway.yaml").write_text(template)
    assert (await init(folder)).code == 1
    assert (folder / "secrets" / "dhp_client_secret").read_text() == f"{SECRET}\n"
    assert (folder / "gateway.yaml.example").read_text() == template


async def test_written_files_are_removed_after_a_failure(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    folder.mkdir()
    (folder / "secrets").write_text("in the way")
    result = await init(folder)
    assert (result.code, result.out) == (2, "")
    assert [each.name for each in folder.iterdir()] == ["secrets"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ("--yes", "--client-id", "your-client-id", "--secret-file", "KEY"),
            "--client-id: is still the example's",
        ),
        (
            ("--yes", "--environment", "dhp-production", "--token-url", "https://sso.clinic.uz"),
            "--token-url: is only for --environment custom",
        ),
        (("--yes", "--environment", "test"), "--environment: one of dhp-playground"),
        (("--yes", "--client-id", "a", "--key-file", "KEY"), "PEM block that is broken"),
        (("--yes", "--client-id", "a", "--secret-file", "no/such"), "no such file or directory"),
    ],
)
async def test_a_wrong_option_is_reported_and_nothing_is_written(
    arguments: Sequence[str], problem: str, tmp_path: Path
) -> None:
    key = tmp_path / "KEY"
    key.write_text(CUT_OFF_KEY)
    options = [str(key) if each == "KEY" else each for each in arguments]
    folder = tmp_path / "new"
    result = await dhp("init", *options, "--directory", str(folder))
    assert result.code == 2
    assert problem in result.err
    assert not folder.exists()


CLIENT = ("--client-id", "a", "--secret-file", "KEY")
FHIR = ("--fhir-base-url", "https://fhir.clinic.uz")
SSO = ("--token-url", "https://sso.clinic.uz/token")


@pytest.mark.parametrize(
    ("arguments", "missing"),
    [
        (("--yes", "--environment", "custom", *CLIENT), ["--fhir-base-url", "--token-url"]),
        # Standard input is no terminal here, so that without --yes nothing can be asked either.
        (("--environment", "custom", *CLIENT), ["--fhir-base-url", "--token-url"]),
        (("--yes", "--environment", "custom", *SSO, *CLIENT), ["--fhir-base-url"]),
        (("--yes", "--environment", "custom", *FHIR, *CLIENT), ["--token-url"]),
        # URLs without --environment mean --environment custom.
        (("--yes", *SSO, *CLIENT), ["--fhir-base-url"]),
        (("--yes", *FHIR), ["--token-url", "--client-id", "--secret-file"]),
        (("--yes",), ["--client-id", "--secret-file"]),
    ],
)
async def test_every_missing_option_is_reported(
    arguments: Sequence[str], missing: list[str], tmp_path: Path
) -> None:
    key = tmp_path / "KEY"
    key.write_text(SECRET)
    folder = tmp_path / "new"
    options = [str(key) if each == "KEY" else each for each in arguments]
    result = await dhp("init", *options, "--directory", str(folder))
    assert (result.code, result.out) == (2, "")
    assert result.err.splitlines() == [
        f"dhp-gateway: {flag} is required, because no question can be asked without a terminal"
        for flag in missing
    ]
    assert not folder.exists()


async def test_urls_without_an_environment_mean_custom(sandbox: Sandbox, tmp_path: Path) -> None:
    folder = tmp_path / "new"
    await init(folder, *options_for(sandbox)[2:], secret=SandboxOptions().client_secret)
    settings = load_settings(folder / "gateway.yaml", {})
    assert (settings.environment, settings.sso.token_url) == ("custom", sandbox.token_url)


@pytest.mark.parametrize(
    ("option", "content", "lang"),
    left_to_ci(
        itertools.product(("--secret-file", "--key-file"), ("", "\n", "  \n"), LANGUAGES), but=5
    ),
)
async def test_an_empty_secret_is_reported_with_a_remedy(
    tmp_path: Path, option: str, content: str, lang: str
) -> None:
    words = Message("is empty").in_language(lang)
    file = tmp_path / "empty"
    file.write_text(content)
    usual = ("--yes", "--client-id", "a", "--directory", str(tmp_path / "new"), "--lang", lang)
    result = await dhp("init", *usual, option, str(file))
    assert (result.code, result.out) == (2, "")
    assert f"dhp-gateway: {option}: {file}: {words}" in result.err
    assert f"(umask 077; printf %s 'SECRET' > {file})" in result.err
    result = await dhp("init", *usual, option, "-")
    assert result.code == 2
    assert f"{option} - < FILE" in result.err


class Terminal:
    """A pseudo-terminal in which each question is awaited before it is answered."""

    def __init__(self, command: Sequence[str], environment: dict[str, str]) -> None:
        try:
            self._controller, terminal = pty.openpty()
        except OSError as error:
            pytest.skip(f"no pseudo-terminal here, as where /dev/pts is not mounted: {error}")
        self.output = ""
        self.process = subprocess.Popen(
            command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment
        )
        os.close(terminal)

    def answer(self, question: str, text: str) -> None:
        begin = len(self.output)
        while question not in self.output[begin:]:
            assert self._read(), self.output
        os.write(self._controller, f"{text}\n".encode())

    def end(self) -> int:
        while self._read():
            pass
        os.close(self._controller)
        return self.process.wait()

    def _read(self) -> bool:
        assert select.select([self._controller], [], [], 120)[0], self.output
        try:
            data = os.read(self._controller, 65536)
        except OSError:  # EIO on Linux: the command has ended
            data = b""
        self.output += data.decode()
        return bool(data)


async def test_the_dialogue_is_in_the_language_of_the_terminal(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    options, folder = SandboxOptions(), tmp_path / "new"
    environment = {**os.environ, **free_listeners(), "LANG": "ru_RU.UTF-8", "LC_ALL": "ru_RU.UTF-8"}
    command = [str(GATEWAY_COMMAND), "init", "--directory", str(folder)]
    terminal = Terminal(command, environment)

    def session() -> int:
        terminal.answer("Какая платформа?", "третья")
        terminal.answer("число от 1 до 3", "3")
        terminal.answer("Адрес сервера FHIR", sandbox.fhir_base_url)
        terminal.answer("Адрес выдачи токенов", sandbox.token_url)
        terminal.answer("client_id, который вам выдали", options.client_id)
        terminal.answer("Чем шлюз подтверждает", "")
        # The last blank is printed after the echo was switched off, which discards earlier input.
        terminal.answer("Client secret (на экране не виден): ", options.client_secret)
        terminal.answer("Где работает старая система?", "1")
        terminal.answer("Куда писать журнал аудита?", "")
        terminal.answer("Хранить записи", "")
        return terminal.end()

    assert await asyncio.to_thread(session) == 0, terminal.output
    assert options.client_secret not in terminal.output
    assert "Всё в порядке." in terminal.output
    assert f"Дальше:\r\n  dhp-gateway run --config {folder / 'gateway.yaml'}" in terminal.output
    assert (
        load_settings(folder / "gateway.yaml", {}).platform.fhir_base_url == sandbox.fhir_base_url
    )
