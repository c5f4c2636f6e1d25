"""The fixtures of the request path's tests, and the event loops of the tests of connections."""

from tests.pipeline.conftest import (
    gateway,
    pytest_asyncio_loop_factories,
    start_gateway,
    testbed,
    uncollected,
    version,
)

__all__ = [
    "gateway",
    "pytest_asyncio_loop_factories",
    "start_gateway",
    "testbed",
    "uncollected",
    "version",
]
