"""Makes what tells people that something is wrong, by `alerts.notify`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

from gateway.admin.alerts import addresses
from gateway.admin.alerts.addresses import AlertAddress, MissingExtraError
from gateway.admin.alerts.messenger import AlertInputSources, AlertMonitor
from gateway.config import SecretReadError, Settings
from gateway.phrases import Phrase, exception_phrase, join_phrases, setting_problem
from gateway.process.factories import StartError
from gateway.process.setup import background_task
from gateway.secret import Secret
from gateway.telemetry.metrics import Metrics


class AlertAddressError(StartError):
    """An address means nothing to the library."""


class AlertService:
    """Telling people, in the process that does; elsewhere (`here` is false) nothing happens."""

    def __init__(self, metrics: Metrics, *, here: bool = True) -> None:
        self._metrics = metrics
        self._is_enabled = here
        self._messenger: AlertMonitor | None = None

    async def resolve_addresses(self, settings: Settings) -> tuple[AlertAddress, ...]:
        """Who is to be told by these settings. Raises `StartError`."""
        return await asyncio.to_thread(parse_addresses, settings) if self._is_enabled else ()

    async def start(
        self,
        settings: Settings,
        addresses: Sequence[AlertAddress],
        sources: AlertInputSources,
        closing: AsyncExitStack,
    ) -> None:
        """Look whether something is wrong, and tell these, until `closing` is closed."""
        messenger = AlertMonitor(sources, self._metrics.count_messages)
        closing.push_async_callback(messenger.close)
        messenger.configure(settings, addresses)
        await closing.enter_async_context(background_task(messenger.run()))
        self._messenger = messenger

    def configure(self, settings: Settings, addresses: Sequence[AlertAddress]) -> None:
        """Tell others from now on, or in another language."""
        if self._messenger is not None:
            self._messenger.configure(settings, addresses)

    def on_reload(self, outcome: str) -> None:
        """How the last reload ended: `ok` or `failed`."""
        if self._messenger is not None:
            self._messenger.on_reload(outcome)


def parse_addresses(settings: Settings) -> tuple[AlertAddress, ...]:
    """Everybody who is to be told. Raises `StartError`; takes most of a second for the first."""
    return tuple(_parse_address(name, url) for name, url in configured_addresses(settings))


def configured_addresses(settings: Settings) -> Iterator[tuple[Phrase, Secret]]:
    """The addresses with their names, read from where they are. Raises `StartError`."""
    for source in settings.alerts.address_sources():
        try:
            text = source.read()
        except SecretReadError as error:
            raise StartError(exception_phrase(error)) from None
        if text is None:
            continue
        if source.file is None:
            yield Phrase(source.key), Secret(text.reveal().strip())
            continue
        for number, line in enumerate(text.reveal().splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                name = Phrase("{key}_file line {number}", key=source.key, number=number)
                yield name, Secret(line.strip())


def _parse_address(name: Phrase, url: Secret) -> AlertAddress:
    try:
        address = addresses.parse_address(name, url)
    except MissingExtraError:
        raise StartError(setting_problem("alerts.notify", addresses.MISSING)) from None
    if address is None:
        why = join_phrases("; ", [addresses.NOT_UNDERSTOOD, addresses.ADDRESS_HINT])
        raise AlertAddressError(setting_problem(name, why))
    return address
