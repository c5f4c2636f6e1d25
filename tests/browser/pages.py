"""Pages of other origins: a web application that may call the gateway, and a malicious page."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web
from aiohttp.test_utils import TestServer

EVIL = """<!doctype html><form id="form" method="post" target="frame"></form>
<iframe name="frame"></iframe>"""


@contextlib.asynccontextmanager
async def serve_page(page: str, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator[str]:
    """Yield the origin that serves this page.

    For browsers, localhost is another host than 127.0.0.1.
    """

    async def show(_request: web.Request) -> web.Response:
        return web.Response(text=page, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", show)
    async with TestServer(app, port=port) as server:
        yield f"http://{host}:{server.port}"


def program(port: int) -> contextlib.AbstractAsyncContextManager[str]:
    """Serve a page whose origin is one of `cors_origins`."""
    return serve_page("<!doctype html><title>program</title>", port=port)


def malicious_page() -> contextlib.AbstractAsyncContextManager[str]:
    """Serve a page of another site."""
    return serve_page(EVIL, host="localhost")


def read(base: str, path: str = "/fhir/Patient/1") -> str:
    """Return a script of the application that reads a resource; its value is the status."""
    return f"fetch('{base}{path}', {{credentials: 'include'}}).then(answer => answer.status)"


def sign_out(base: str) -> str:
    """Return a script of the application that signs out; its value is the response."""
    return (
        f"fetch('{base}/auth/logout', {{method: 'POST', credentials: 'include', "
        "headers: {'X-Requested-With': 'program'}}).then(answer => answer.json())"
    )
