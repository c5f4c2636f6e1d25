"""Metrics, audit record and listener calls at the end of every exchange."""

from __future__ import annotations

from collections.abc import Callable

from gateway.exchange import Exchange


class ExchangeAccounting:
    """Updates the metrics and writes one audit record for each finished exchange.

    `count` updates the metrics, `record` writes the audit record, and `listeners` are called
    last, in order. There is no audit record for requests of unidentified clients beyond
    `limits.unidentified_rate`: such requests could fill the disk.
    """

    def __init__(
        self,
        count: Callable[[Exchange], None],
        record: Callable[[Exchange], None],
        listeners: tuple[Callable[[Exchange], None], ...],
    ) -> None:
        self._count = count
        self._record = record
        self._listeners = listeners

    def account(self, exchange: Exchange) -> None:
        """Account for a finished exchange, which must not change afterwards."""
        self._count(exchange)
        if not exchange.is_audit_skipped:
            self._record(exchange)
        for listener in self._listeners:
            listener(exchange)
