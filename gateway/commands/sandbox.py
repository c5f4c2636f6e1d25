"""The `sandbox` command: an embedded platform and a gateway in front of it, in one process.

Needs neither network nor settings. `gateway.sandbox` knows nothing of the rest; this module joins
the two the way an operator would: by URLs and a credential.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass

from gateway import sockets
from gateway.app import Gateway, new_event_loop
from gateway.config import Address, Settings
from gateway.sandbox import Sandbox, SandboxOptions
from gateway.telemetry import logs
from gateway.wiring import StartError

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Demo:
    """What is run and where. Without `gateway`, the platform alone."""

    platform: SandboxOptions
    listen: Address
    admin: Address
    gateway: bool = True


def run(demo: Demo, say: Say) -> None:
    """Serve until SIGINT or SIGTERM; `say` prints a line. Raises `StartError`."""
    logs.configure("warning", "console")
    with asyncio.Runner(loop_factory=new_event_loop()) as runner:
        runner.run(_serve(demo, say))


async def _serve(demo: Demo, say: Say) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await _require_free(demo)
    platform = Sandbox(demo.platform, log=say)
    await platform.start()
    try:
        await _serve_gateway(demo, platform, say, stop)
    finally:
        await platform.stop()


async def _require_free(demo: Demo) -> None:
    """Raises `StartError` with a line for every address that cannot be had."""
    platform = Address(demo.platform.host, demo.platform.port)
    addresses = {"--port": platform}
    if demo.gateway:
        addresses |= {"--listen": demo.listen, "--admin": demo.admin}
    try:
        listening = await sockets.listen(addresses)
    except sockets.CannotListen as error:
        lines = (
            f"cannot listen on {each.address}: {each.why}; choose another with {each.key}"
            for each in error.refused
        )
        raise StartError("\n".join(lines)) from None
    for each in listening:
        each.close()
        each.remove_path()


async def _serve_gateway(demo: Demo, platform: Sandbox, say: Say, stop: asyncio.Event) -> None:
    if not demo.gateway:
        _announce_platform(demo, platform, say)
        await stop.wait()
        return
    gateway = Gateway(settings(demo, platform.fhir_base_url, platform.token_url))
    await gateway.start()
    try:
        _announce_platform(demo, platform, say)
        _announce_gateway(gateway, platform, say)
        await stop.wait()
    finally:
        await gateway.stop()


def settings(demo: Demo, fhir_base_url: str, token_url: str) -> Settings:
    """The settings of a gateway in front of a sandbox."""
    credential = {
        "client_id": demo.platform.client_id,
        "client_secret": demo.platform.client_secret,
    }
    return Settings.model_validate(
        {
            "environment": "custom",
            "listen": {"address": demo.listen, "allow_anonymous": True},
            "admin": {"address": demo.admin},
            "platform": {"fhir_base_url": fhir_base_url},
            "sso": {"token_url": token_url},
            "credentials": {"default": credential},
            # Its standard output is for the person who tries it.
            "audit": {"sink": "off"},
            "log": {"level": "warning", "format": "console"},
            "shutdown": {"delay": 0, "drain_timeout": 5},
        }
    )


def _announce_platform(demo: Demo, platform: Sandbox, say: Say) -> None:
    say(f"Platform (FHIR R5)  {platform.fhir_base_url}")
    say(f"SSO token endpoint  {platform.token_url}")
    say(f"Client              {demo.platform.client_id} / {demo.platform.client_secret}")
    if not demo.gateway:
        say("")
        say("A gateway in front of it, from another terminal:")
        say(f"  {_gateway_command(platform)}")
        say("Ctrl-C ends it.")


def _gateway_command(platform: Sandbox) -> str:
    """What starts a gateway in front of this platform; the file leads to the default port."""
    command = "dhp-gateway run --config config/sandbox.yaml"
    ready_made = SandboxOptions()
    if platform.fhir_base_url == f"{ready_made.origin(ready_made.port)}/fhir":
        return command
    return (
        f"DHP_GATEWAY_PLATFORM__FHIR_BASE_URL={platform.fhir_base_url} "
        f"DHP_GATEWAY_SSO__TOKEN_URL={platform.token_url} {command}"
    )


def _announce_gateway(gateway: Gateway, platform: Sandbox, say: Say) -> None:
    address, path = gateway.address.reachable, f"/fhir/Patient/{platform.patient_id}"
    say(f"Gateway             {_url(address)}/fhir")
    say(f"Operators           {_url(gateway.admin_address.reachable)}/readyz")
    say("")
    say("Try it (the gateway adds the token):")
    if address.path is None:
        say(f"  curl {_url(address)}{path}")
    else:
        say(f"  curl --unix-socket {address.path} http://localhost{path}")
    say("")
    say("Ctrl-C ends it.")


def _url(address: Address) -> str:
    return str(address) if address.path is not None else f"http://{address}"
