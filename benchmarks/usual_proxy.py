"""The usual proxy, for comparison: aiohttp application, `ClientSession`, cached token.

    usual_proxy.py PORT UPSTREAM TOKEN_URL [CA_FILE]

It is a careful small implementation: persistent connections, streamed bodies, one token for all
requests, refreshed before it expires, and a log line for every request.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from yarl import URL

HOP_BY_HOP = frozenset(
    {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
)
NOT_FORWARDED = HOP_BY_HOP | {"host", "authorization", "content-length"}
FORM = {"grant_type": "client_credentials", "client_id": "bench", "client_secret": "bench"}


class Proxy:
    """Forwards every request to the upstream with a bearer token."""

    def __init__(self, upstream: str, token_url: str, authorities: list[str]) -> None:
        self.upstream, self.token_url = upstream, token_url
        self.tls = ssl.create_default_context(cafile=authorities[0]) if authorities else True
        self.token, self.expiry, self.lock = "", 0.0, asyncio.Lock()

    async def session(self, app: web.Application) -> AsyncIterator[None]:
        """Open the client session with the application and close it with it."""
        connector = aiohttp.TCPConnector(limit=256, ssl=self.tls)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as self.client:
            yield

    async def bearer(self) -> str:
        """Return the cached token, or a new one when it is about to expire."""
        async with self.lock:
            if time.monotonic() > self.expiry - 30:
                async with self.client.post(self.token_url, data=FORM) as answer:
                    token = await answer.json()
                self.token = token["access_token"]
                self.expiry = time.monotonic() + token["expires_in"]
            return self.token

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Forward the request and stream the response back."""
        started = time.monotonic()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in NOT_FORWARDED}
        headers["Authorization"] = f"Bearer {await self.bearer()}"
        body = request.content if request.can_read_body else None
        async with self.client.request(
            request.method,
            URL(self.upstream + request.raw_path, encoded=True),
            headers=headers,
            data=body,
            allow_redirects=False,
        ) as answer:
            kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
            await response.write_eof()
        line = {"method": request.method, "path": request.path, "status": answer.status}
        print(json.dumps({**line, "duration_ms": (time.monotonic() - started) * 1000}))
        return response


def main() -> None:
    """Run the proxy on a loopback port until it is ended."""
    port, upstream, token_url, *authorities = sys.argv[1:]
    proxy = Proxy(upstream, token_url, authorities)
    app = web.Application(client_max_size=1 << 26)
    app.cleanup_ctx.append(proxy.session)
    app.router.add_route("*", "/{path:.*}", proxy.handle)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main()
