"""Tests the addresses of `alerts.notify`, by a test message or by a connection only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

from gateway.alerts.alert_messages import AlertFormatter
from gateway.alerts.notify_addresses import (
    AddressSender,
    AlertAddress,
    AlertAddressError,
    parse_address,
)
from gateway.app import observability_setup
from gateway.app.preflight import Finding, address_check
from gateway.cli.doctor_network import CheckedServer, check_connection
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.field_values import authority
from gateway.i18n import Message

_TEST_HINT: Final = Message("`dhp-gateway notify --test` sends a message there")
_CONNECT_TIMEOUT: Final = 5.0


async def send_test_message(settings: Settings, addresses: Sequence[AlertAddress]) -> list[Finding]:
    """Send the test message to all addresses. Return a result for each, in their order."""
    message = AlertFormatter.from_settings(settings).format_test()
    sent = await asyncio.gather(*(AddressSender(address).send(message) for address in addresses))
    return [_message_result(*result) for result in zip(addresses, sent, strict=True)]


def _message_result(address: AlertAddress, taken: bool) -> Finding:
    if taken:
        return Finding(address_check(address.name), "ok", Message("the test message was accepted"))
    return Finding(
        address_check(address.name),
        "failed",
        Message("the test message was not accepted"),
        Message(
            "Check the address, its password and its recipients, and whether the CA of the "
            "server's certificate is known here; `dhp-gateway doctor` tests the connection to it"
        ),
    )


async def check_addresses(settings: Settings) -> AsyncIterator[Finding]:
    """Yield the doctor's checks of the connections; an unusable address is reported elsewhere."""
    with contextlib.suppress(StartError):
        for name, url in observability_setup.configured_addresses(settings):
            with contextlib.suppress(AlertAddressError):
                for finding in await _check_route(parse_address(name, url)):
                    yield finding


async def _check_route(address: AlertAddress) -> Sequence[Finding]:
    server = address.server()
    if server is None:
        return [
            Finding(
                address_check(address.name),
                "ok",
                Message("Apprise understands it, and knows its server"),
                _TEST_HINT,
            )
        ]
    tcp_url = f"tcp://{authority(*server)}"
    checked_server = CheckedServer(
        address_check(address.name), tcp_url, "alerts.notify", lambda: None, _CONNECT_TIMEOUT
    )
    return await check_connection(checked_server)
