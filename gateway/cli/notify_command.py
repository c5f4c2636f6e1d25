"""Tests the addresses of `alerts.notify`, by a test message or by a connection only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Final

from gateway.alerts.alert_messages import AlertFormatter
from gateway.alerts.notify_addresses import (
    ADDRESS_HINT,
    MISSING,
    NOT_UNDERSTOOD,
    AddressSender,
    MissingExtraError,
    parse_address,
)
from gateway.app import observability_setup
from gateway.app.preflight import CheckResult
from gateway.cli.doctor_network import CheckedServer, check_connection
from gateway.errors import StartError
from gateway.field_values import authority
from gateway.i18n import Message

if TYPE_CHECKING:
    from gateway.alerts.notify_addresses import AlertAddress
    from gateway.config.settings import Settings
    from gateway.secret import Secret

_TEST_HINT: Final = Message("`dhp-gateway notify --test` sends a message there")
_CONNECT_TIMEOUT: Final = 5.0


async def send_test_message(
    settings: Settings, addresses: Sequence[AlertAddress]
) -> list[CheckResult]:
    """Send the test message to all addresses. Return a result for each, in their order."""
    message = AlertFormatter.from_settings(settings).format_test()
    sent = await asyncio.gather(*(AddressSender(address).send(message) for address in addresses))
    return [_message_result(*result) for result in zip(addresses, sent, strict=True)]


def _message_result(address: AlertAddress, taken: bool) -> CheckResult:
    if taken:
        return CheckResult(address.name, "ok", Message("the test message was taken"))
    hint = Message(
        "Check the address and its password; `dhp-gateway doctor` looks at the way there"
    )
    return CheckResult(address.name, "failed", Message("the test message was not taken"), hint)


async def check_addresses(settings: Settings) -> AsyncIterator[CheckResult]:
    """Yield the doctor's checks: the library, the syntax of each address, the connection."""
    try:
        addresses = list(observability_setup.configured_addresses(settings))
    except StartError:
        return  # reported with the secrets' files
    try:
        for name, url in addresses:
            async for finding in _check_address_route(name, url):
                yield finding
    except MissingExtraError:
        hint = Message("alerts.notify {missing}", missing=MISSING)
        yield CheckResult(Message("alerts"), "failed", Message("Apprise is not installed"), hint)


async def _check_address_route(name: Message, url: Secret) -> AsyncIterator[CheckResult]:
    address = parse_address(name, url)
    if address is None:
        hint = Message("{hint:capital}", hint=ADDRESS_HINT)
        yield CheckResult(name, "failed", NOT_UNDERSTOOD, hint)
        return
    server = address.server()
    if server is None:
        detail = Message("Apprise understands it, and knows its server")
        yield CheckResult(address.name, "ok", detail, _TEST_HINT)
        return
    tcp_url = f"tcp://{authority(*server)}"
    checked_server = CheckedServer(
        address.name, tcp_url, "alerts.notify", lambda: None, _CONNECT_TIMEOUT
    )
    async for finding in check_connection(checked_server):
        yield finding
