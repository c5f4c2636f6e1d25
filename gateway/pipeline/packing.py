"""Compresses request bodies towards the platform, for slow networks (`platform.compression: both`).

A server announces by `Accept-Encoding` in a response that it decodes compressed requests (RFC 9110
section 12.5.3). Until then, and again once it has responded to one with 415, bodies are sent
uncompressed. Only buffered bodies are compressed, so that a request can be repeated uncompressed
after a 415.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

from gateway.exchange import Exchange
from gateway.http.client.response import UpstreamResponse
from gateway.http.content_coding import accepts_coding, gzip_compress
from gateway.oauth.token import AccessToken
from gateway.pipeline.attempts import RequestForwarder
from gateway.pipeline.upstream import UpstreamRequest

# Smaller bodies gain nothing: they fit into one packet uncompressed.
_MIN_BODY_BYTES: Final = 1024
# Compressing more than this would block the event loop for too long.
_MAX_INLINE_BYTES: Final = 128 * 1024
# Fields that describe the octets of the uncompressed body.
_REPRESENTATION_FIELDS: Final = (
    b"content-encoding:",
    b"content-md5:",
    b"digest:",
    b"content-digest:",
)


class BufferedBody:
    """A body that is in memory and can be sent as often as needed."""

    is_replayable = True

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._sent = False
        self.length = len(data)

    def buffered(self) -> bytes:
        """Return the complete body."""
        return self._data

    def rewind(self) -> None:
        """Start again at the first byte."""
        self._sent = False

    async def read_chunk(self) -> bytes:
        """Return the next chunk, b"" at the end."""
        data, self._sent = b"" if self._sent else self._data, True
        return data


class CompressingForwarder:
    """Forwards through another forwarder, with compressed bodies once the platform accepts them.

    After a 415 bodies are not compressed again until the settings are reloaded.
    """

    def __init__(self, forwarder: RequestForwarder) -> None:
        self._forwarder = forwarder
        self._accepted = False
        self._refused = False

    async def send(
        self, exchange: Exchange, outgoing: UpstreamRequest, credential: str, token: AccessToken
    ) -> UpstreamResponse:
        """Return the response that the inner forwarder returns. Raises what that raises."""
        compressed = await self._compressed_request(outgoing)
        response = await self._forwarder.send(exchange, compressed or outgoing, credential, token)
        if compressed is not None and response.status == 415:
            # The platform rejected the format (RFC 9110 section 15.5.16) and did not process the
            # request.
            response.close()
            response = await self._forwarder.send(exchange, outgoing, credential, token)
            self._refused = response.status != 415  # a second 415 is about the Content-Type
        self._update_support(response)
        return response

    def _update_support(self, response: UpstreamResponse) -> None:
        field = response.fields.values.get(b"accept-encoding")
        if field is not None:
            self._accepted = accepts_coding(field, "gzip")

    async def _compressed_request(self, outgoing: UpstreamRequest) -> UpstreamRequest | None:
        if not self._accepted or self._refused or outgoing.body is None:
            return None
        body = outgoing.body.buffered()
        if body is None or len(body) < _MIN_BODY_BYTES:
            return None
        if any(line.lower().startswith(_REPRESENTATION_FIELDS) for line in outgoing.field_lines):
            return None
        large = len(body) > _MAX_INLINE_BYTES
        compressed = await asyncio.to_thread(gzip_compress, body) if large else gzip_compress(body)
        if len(compressed) >= len(body):
            return None
        field_lines = [*outgoing.field_lines, b"Content-Encoding: gzip\r\n"]
        return replace(outgoing, field_lines=field_lines, body=BufferedBody(compressed))
