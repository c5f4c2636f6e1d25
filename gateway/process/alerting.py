"""Constructs the alert monitor and the addresses of `alerts.notify`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

from gateway.admin.alerts import addresses
from gateway.admin.alerts.addresses import AlertAddress, MissingExtraError
from gateway.admin.alerts.messenger import AlertInputSources, AlertMonitor
from gateway.config import SecretReadError, Settings
from gateway.i18n import Message, exception_message, join_messages, setting_problem
from gateway.process.factories import StartError
from gateway.secret import Secret
from gateway.telemetry.metrics import Metrics


class AlertAddressError(StartError):
    """An alert address is not understood by the notification library."""


class AlertService:
    """The alerts of this gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._messenger: AlertMonitor | None = None

    async def resolve_addresses(self, settings: Settings) -> tuple[AlertAddress, ...]:
        """Return the alert addresses of these settings. Raises `StartError`."""
        return await asyncio.to_thread(parse_addresses, settings)

    def open(
        self,
        settings: Settings,
        addresses: Sequence[AlertAddress],
        sources: AlertInputSources,
        closing: AsyncExitStack,
    ) -> AlertMonitor:
        """Return the monitor that notifies `addresses` while its `run` is awaited."""
        messenger = AlertMonitor(sources, self._metrics.count_messages)
        closing.push_async_callback(messenger.close)
        messenger.configure(settings, addresses)
        self._messenger = messenger
        return messenger

    def configure(self, settings: Settings, addresses: Sequence[AlertAddress]) -> None:
        """Use these addresses and the language of these settings from now on."""
        if self._messenger is not None:
            self._messenger.configure(settings, addresses)

    def on_reload(self, outcome: str) -> None:
        """Record how the last reload ended: `ok` or `failed`."""
        if self._messenger is not None:
            self._messenger.on_reload(outcome)


def parse_addresses(settings: Settings) -> tuple[AlertAddress, ...]:
    """Return all alert addresses. Raises `StartError`.

    The first call takes most of a second, because it imports the notification library.
    """
    return tuple(_parse_address(name, url) for name, url in configured_addresses(settings))


def configured_addresses(settings: Settings) -> Iterator[tuple[Message, Secret]]:
    """Yield the addresses with their names, read from the settings or files.

    Raises `StartError`.
    """
    for source in settings.alerts.address_sources():
        try:
            text = source.read()
        except SecretReadError as error:
            raise StartError(exception_message(error)) from None
        if text is None:
            continue
        if source.file is None:
            yield Message(source.key), Secret(text.reveal().strip())
            continue
        for number, line in enumerate(text.reveal().splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                name = Message("{key}_file line {number}", key=source.key, number=number)
                yield name, Secret(line.strip())


def _parse_address(name: Message, url: Secret) -> AlertAddress:
    try:
        address = addresses.parse_address(name, url)
    except MissingExtraError:
        raise StartError(setting_problem("alerts.notify", addresses.MISSING)) from None
    if address is None:
        why = join_messages("; ", [addresses.NOT_UNDERSTOOD, addresses.ADDRESS_HINT])
        raise AlertAddressError(setting_problem(name, why))
    return address
