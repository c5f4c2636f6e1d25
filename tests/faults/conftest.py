"""The fixtures of the request path's tests; every gateway must be idle at its end."""

from tests.pipeline.conftest import gateway, stage, start_gateway, token_clock

__all__ = ["gateway", "stage", "start_gateway", "token_clock"]
