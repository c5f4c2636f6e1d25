"""The `sandbox` command: an embedded platform and a gateway in front of it, in one process.

It needs neither network nor settings. `gateway.sandbox` is independent of the other packages; this
module connects the two as an operator would: by URLs and a credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import click

from gateway import os_support
from gateway.app import listening_sockets
from gateway.app.application import Gateway
from gateway.cli.terminal import print_line, translate
from gateway.config.settings import PRESETS, Settings
from gateway.config.value_types import ListenAddress
from gateway.errors import StartError
from gateway.i18n import Message, join_messages
from gateway.sandbox.example_data import PATIENT_ID
from gateway.sandbox.fhir.resource_validation import has_models
from gateway.sandbox.options import HOST, SandboxOptions
from gateway.sandbox.server import EXAMPLE_PATH, Sandbox
from gateway.telemetry import logs

_PLATFORM: Final = Message("Platform (FHIR R5)")
_SSO: Final = Message("SSO token endpoint")
_CLIENT: Final = Message("Client id and secret")
_GATEWAY: Final = Message("Gateway")
_OPERATORS: Final = Message("Operators")
_AUDIT: Final = Message("Audit")
_ROWS: Final = (_PLATFORM, _SSO, _CLIENT, _GATEWAY, _OPERATORS, _AUDIT)
_END: Final = Message("To stop it: Ctrl-C.")
_NOT_VALIDATED: Final = Message(
    "Resources that you write are not validated: install {package} for that.",
    package="dhp-gateway[sandbox]",
)


@dataclass(frozen=True, slots=True)
class SandboxRun:
    """What is run and where. Without `gateway`, the platform alone; `login`: users sign in.

    `audit` is the gateway's audit file, where this system supports one.
    """

    platform: SandboxOptions
    listen: ListenAddress
    admin: ListenAddress
    gateway: bool = True
    login: bool = False
    audit: Path | None = None

    @property
    def gateway_url(self) -> str:
        """The gateway's origin."""
        return f"http://{self.listen.client_address}"


def serve_sandbox(run: SandboxRun) -> None:
    """Serve until SIGINT or SIGTERM. Raises `StartError`."""
    logs.configure("warning", "console")
    with asyncio.Runner(loop_factory=os_support.new_event_loop()) as runner:
        runner.run(_serve(run))


async def _serve(run: SandboxRun) -> None:
    stop = asyncio.Event()
    os_support.on_signals(dict.fromkeys(("SIGTERM", "SIGINT", "SIGBREAK"), stop.set))
    run = await _with_free_addresses(run)
    with contextlib.ExitStack() as stack:
        if run.gateway and os_support.HAS_FILE_LOCKS:
            run = _with_audit(run, stack)
        platform = Sandbox(run.platform, log=click.echo)
        await platform.start()
        try:
            await _serve_gateway(run, platform, stop)
        finally:
            await platform.stop()


def _with_audit(run: SandboxRun, stack: contextlib.ExitStack) -> SandboxRun:
    try:
        folder = stack.enter_context(TemporaryDirectory(prefix="dhp-gateway-"))
    except OSError:
        # A container with a read-only file system.
        return run
    file = Path(folder, "audit.jsonl")
    return replace(run, audit=file, platform=replace(run.platform, gateway_audit=str(file)))


async def _with_free_addresses(run: SandboxRun) -> SandboxRun:
    """Check that all addresses are free; with the login, return the actual ones.

    With the login, the platform has to know the gateway's address before either listens. Raises
    `StartError` with a line for every address that is not free.
    """
    addresses = {"--port": ListenAddress(HOST, run.platform.port)}
    if run.gateway:
        addresses |= {"--listen": run.listen, "--admin": run.admin}
    try:
        listening = await listening_sockets.listen(addresses)
    except listening_sockets.ListenError as error:
        lines = (
            Message(
                "cannot listen on {address}: {why}; choose another with {key}",
                address=failure.address,
                why=failure.problem,
                key=failure.key,
            )
            for failure in error.failures
        )
        raise StartError(join_messages("\n", lines)) from None
    for listener in listening:
        listener.close()
        listener.remove_path()
    if not run.login or not run.gateway:
        return run
    if run.listen.path is not None:
        raise StartError(Message("--login: browsers need --listen HOST:PORT"))
    run = replace(run, listen=listening[1].address)
    return replace(run, platform=replace(run.platform, gateway_url=run.gateway_url))


async def _serve_gateway(run: SandboxRun, platform: Sandbox, stop: asyncio.Event) -> None:
    if not run.gateway:
        _announce_platform(run, platform)
        await stop.wait()
        return
    gateway = Gateway(sandbox_settings(run, platform))
    await gateway.start()
    try:
        _announce_platform(run, platform)
        _announce_gateway(run, gateway, platform)
        await stop.wait()
    finally:
        await gateway.stop()


def sandbox_settings(run: SandboxRun, platform: Sandbox) -> Settings:
    """Return the settings of a gateway in front of a sandbox."""
    credential = {
        "client_id": run.platform.client_id,
        "client_secret": run.platform.client_secret,
    }
    return Settings.model_validate(
        {
            "environment": "custom",
            "listen": {"address": run.listen, "allow_anonymous": True},
            "admin": {"address": run.admin},
            "platform": {"fhir_base_url": platform.fhir_base_url},
            "sso": {"token_url": platform.token_url, "authorize_url": platform.authorize_url},
            "credentials": {"default": credential},
            # Standard output is for the user of the sandbox.
            "audit": {"sink": "file", "path": run.audit} if run.audit else {"sink": "off"},
            "log": {"level": "warning", "format": "console"},
            "shutdown": {"delay": 0, "drain_timeout": 5},
            "login": _login(run, platform) if run.login else {},
            # The sandbox ignores the same parameters as the playground.
            "fhir": {} if run.platform.lenient else PRESETS["dhp-playground"]["fhir"],
        }
    )


def _login(run: SandboxRun, platform: Sandbox) -> dict[str, Any]:
    return {
        "enabled": True,
        "client_id": run.platform.public_client_id,
        "redirect_uri": f"{run.gateway_url}/auth/callback",
        "allowed_return_origins": [platform.origin],
        "cors_origins": [platform.origin],
    }


def _announce_platform(run: SandboxRun, platform: Sandbox) -> None:
    _row(_PLATFORM, platform.fhir_base_url)
    _row(_SSO, platform.token_url)
    _row(_CLIENT, f"{run.platform.client_id} / {run.platform.client_secret}")
    if not has_models():
        print_line(_NOT_VALIDATED)
    if not run.gateway:
        _print_invitation(Message("A gateway in front of it, from another terminal:"))
        click.echo(f"  {_gateway_command(platform)}")
        print_line(_END)


def _gateway_command(platform: Sandbox) -> str:
    """Return the command that starts a gateway for this platform.

    It names the sandbox's settings file, if there is one.
    """
    ready_made = SandboxOptions()
    settings = _settings_file()
    variables = {}
    if settings is None:
        variables = {
            "ENVIRONMENT": "custom",
            "CREDENTIALS__DEFAULT__CLIENT_ID": ready_made.client_id,
            "CREDENTIALS__DEFAULT__CLIENT_SECRET": ready_made.client_secret,
        }
    # The settings file has the default port.
    if settings is None or platform.fhir_base_url != Sandbox(ready_made).fhir_base_url:
        variables |= {
            "PLATFORM__FHIR_BASE_URL": platform.fhir_base_url,
            "SSO__TOKEN_URL": platform.token_url,
        }
    words = [f"DHP_GATEWAY_{name}={value}" for name, value in variables.items()]
    return " ".join([*words, "dhp-gateway run", *([f"--config {settings}"] if settings else [])])


def _settings_file() -> Path | None:
    """Return the sandbox's settings file, None without one.

    A checkout and an installation from the offline archive have it; a wheel or an image does not.
    """
    folders = (Path("config"), Path(sys.prefix, "share", "config"))
    return next((file for folder in folders if (file := folder / "sandbox.yaml").is_file()), None)


def _announce_gateway(run: SandboxRun, gateway: Gateway, platform: Sandbox) -> None:
    address = gateway.address.client_address
    _row(_GATEWAY, f"{_url(address)}/fhir")
    _row(_OPERATORS, f"{_url(gateway.admin_address.client_address)}/status")
    if run.audit is not None:
        _row(_AUDIT, str(run.audit))
    if run.login:
        _print_invitation(Message("Open it in a browser and sign in (any name will do):"))
        click.echo(f"  {platform.origin}{EXAMPLE_PATH}")
    else:
        _print_invitation(Message("Try it (the gateway adds the token):"))
        click.echo(f"  curl {_curl_target(address)}/fhir/Patient/{PATIENT_ID}")
        if run.audit is not None:
            print_line(Message("What the audit records about it:"))
            click.echo(f"  tail -n 1 {run.audit}")
    click.echo("")
    print_line(_END)


def _curl_target(address: ListenAddress) -> str:
    if address.path is None:
        return _url(address)
    return f"--unix-socket {address.path} http://localhost"


def _print_invitation(invitation: Message) -> None:
    click.echo("")
    print_line(invitation)


def _row(name: Message, value: str) -> None:
    """Print a row of the table, with its value in the second column."""
    width = max(len(translate(row)) for row in _ROWS)
    click.echo(f"{translate(name):<{width}}  {value}")


def _url(address: ListenAddress) -> str:
    return str(address) if address.path is not None else f"http://{address}"
