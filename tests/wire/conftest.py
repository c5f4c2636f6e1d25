"""The fixtures of the request path's tests; every gateway must be idle at its end."""

from tests.pipeline.conftest import (
    gateway,
    pytest_asyncio_loop_factories,
    sections,
    servers,
    start_gateway,
    tls,
)

__all__ = [
    "gateway",
    "pytest_asyncio_loop_factories",
    "sections",
    "servers",
    "start_gateway",
    "tls",
]
