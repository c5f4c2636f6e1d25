"""Requests of the gateway itself to the platform, with a credential's access token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.exchange import Exchange
from gateway.http.client.response import UpstreamResponse
from gateway.pipeline.attempts import Forwarder, TokenProvider
from gateway.pipeline.upstream import UpstreamRequest

_ACCEPT: Final = (b"Accept: application/fhir+json\r\n", b"Accept-Encoding: identity\r\n")


class PlatformClient:
    """Reads from the platform; `platform_path` is its base path without a final slash."""

    def __init__(self, forwarder: Forwarder, tokens: TokenProvider, platform_path: str) -> None:
        self._forwarder = forwarder
        self._tokens = tokens
        self.platform_path = platform_path

    async def get(
        self,
        suffix: str,
        credential: str,
        request_id: str,
        *,
        field_lines: Sequence[bytes] = (),
        single_attempt: bool = False,
    ) -> UpstreamResponse:
        """Return the response to a GET; the calling code closes it. Raises `GatewayError`.

        `field_lines` are additional fields. `single_attempt`: a request to which the platform
        responded is not retried, and it is sent also while the circuit is open.
        """
        token = self._tokens.current(credential) or await self._tokens.wait_for_token(credential)
        outgoing = UpstreamRequest(
            method="GET",
            target=(self.platform_path + suffix).encode("ascii"),
            field_lines=[*_ACCEPT, *field_lines],
            request_id=request_id,
            body=None,
            is_retryable=not single_attempt,
            allow_when_open=single_attempt,
        )
        # This exchange belongs to no caller: it only collects what `send` records and is not read.
        exchange = Exchange(request_id=request_id, started_at=0.0, started_monotonic=0.0)
        return await self._forwarder.send(exchange, outgoing, credential, token)


async def fetch_etag(
    client: PlatformClient, suffix: str, credential: str, request_id: str
) -> bytes | None:
    """Return the current ETag of a resource at the platform, or None. Raises `GatewayError`."""
    response = await client.get(suffix, credential, request_id)
    try:
        etag = response.field(b"etag") if response.status == 200 else None
        return None if etag is None else etag.encode("latin-1")
    finally:
        response.close()
