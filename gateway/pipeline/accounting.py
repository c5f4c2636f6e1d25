"""What becomes of every exchange at its end."""

from __future__ import annotations

from collections.abc import Callable

from gateway.exchange import Exchange


class ExchangeAccounting:
    """One update of the metrics (`count`) and one audit record; `notes` are told last.

    Of what strangers ask too often there is no record: they could fill the disk.
    """

    def __init__(
        self,
        count: Callable[[Exchange], None],
        record: Callable[[Exchange], None],
        notes: tuple[Callable[[Exchange], None], ...],
    ) -> None:
        self._count = count
        self._record = record
        self._listeners = notes

    def account(self, exchange: Exchange) -> None:
        """Account for a finished exchange, which must not change any more."""
        self._count(exchange)
        if not exchange.is_audit_skipped:
            self._record(exchange)
        for note in self._listeners:
            note(exchange)
