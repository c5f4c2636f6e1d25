"""The doctor's checks of the listeners: free, or in use by a gateway with these settings.

A running gateway is asked for its settings; an address that another program uses is a failure.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from gateway import os_support
from gateway.admin.status.settings_shown import visible_settings
from gateway.commands import healthcheck
from gateway.commands.findings import CheckResult
from gateway.config import ListenAddress, Settings
from gateway.i18n import EMPTY_MESSAGE, Message, exception_message
from gateway.process.sockets import is_stale_socket
from gateway.secret import MASK

# Settings that identify a gateway: its address, its platform and SSO, and its client.
_IDENTITY: Final = ("listen.address", "platform.fhir_base_url", "sso.token_url", ".client_id")
_MAX_KEYS: Final = 5


def examine(settings: Settings) -> Iterator[CheckResult]:
    """Yield for each address whether it is free or in use by the gateway of these settings."""
    running = _running_settings(settings.admin.address)
    differing = (
        [] if running is None else list(_differing(running, dict(visible_settings(settings))))
    )
    is_another = any(key.endswith(_IDENTITY) for key in differing)
    for key, address in (
        ("listen.address", settings.listen.address),
        ("admin.address", settings.admin.address),
    ):
        check = Message("listener {key}", key=key)
        try:
            is_shared = key == "listen.address" and settings.listen.reuse_port
            _try_to_listen(address, is_shared=is_shared)
        except OSError as error:
            if running is None or (key == "listen.address" and key in differing):
                yield _taken(check, key, address, error)
            elif is_another:
                yield _in_use_by_another(check, key, address, differing)
            else:
                yield _in_use(check, address, differing)
        else:
            yield CheckResult(check, "ok", Message("{address} is free", address=address))


def _running_settings(address: ListenAddress) -> Mapping[str, Any] | None:
    """Return the settings of the gateway at the admin address, None without one.

    The mapping is empty where the gateway does not show its settings.
    """
    if not healthcheck.is_alive(address):
        return None
    try:
        _, facts = healthcheck.ask(address, "/status.json")
    except (OSError, ValueError):
        return {}
    found = facts.get("settings")
    return found if isinstance(found, dict) else {}


def _differing(running: Mapping[str, Any], configured: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys with different values, except secrets.

    Secrets are not shown, and systemd gives a service copies of their files, with other paths.
    """
    for key in dict.fromkeys((*configured, *filter(str.isprintable, running))):
        running_value, configured_value = running.get(key), configured.get(key)
        is_secret = MASK in (running_value, configured_value) or key.endswith("_file")
        if running_value != configured_value and not is_secret:
            yield key


def _in_use(check: Message, address: ListenAddress, differing: list[str]) -> CheckResult:
    hint = (
        Message(
            "It does not run with these settings yet: {keys}. Restart it", keys=_named(differing)
        )
        if differing
        else EMPTY_MESSAGE
    )
    detail = Message("{address} is in use by the gateway that runs", address=address)
    return CheckResult(check, "ok", detail, hint)


def _in_use_by_another(
    check: Message, key: str, address: ListenAddress, differing: list[str]
) -> CheckResult:
    hint = Message(
        "It runs with other settings: {keys}. Restart it if it is to have these, else change {key}",
        keys=_named(differing),
        key=key,
    )
    detail = Message("{address} is in use by another gateway", address=address)
    return CheckResult(check, "failed", detail, hint)


def _named(keys: list[str]) -> str:
    return ", ".join(keys[:_MAX_KEYS]) + (", …" if len(keys) > _MAX_KEYS else "")


def _taken(check: Message, key: str, address: ListenAddress, error: OSError) -> CheckResult:
    reason = Message(os.strerror(error.errno).lower()) if error.errno else exception_message(error)
    return CheckResult(
        check,
        "failed",
        Message("{address} is not free: {reason}", address=address, reason=reason),
        Message(
            "Another program listens there; end it or change {key}. To see who it is: ss -ltnp",
            key=key,
        ),
    )


def _try_to_listen(address: ListenAddress, *, is_shared: bool) -> None:
    """Listen on the address for a moment. Raises OSError where it is not free.

    A port that is shared is only bound: a socket that listens would be given callers' connections.
    """
    if address.path is not None:
        path = Path(address.path)
        if not os.access(path.parent, os.W_OK):
            raise PermissionError(Message("the folder cannot be written"))
        is_stale_socket(path)
        return
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as probe:
        os_support.set_address_reuse(probe)
        if is_shared:
            os_support.share_port(probe)
        probe.bind((address.host, address.port))
        if not is_shared:
            probe.listen(1)
