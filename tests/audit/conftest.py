"""Exchanges to record, and pipes to write to."""

from tests.telemetry.conftest import full_device, make_exchange, pipe, until

__all__ = ["full_device", "make_exchange", "pipe", "until"]
