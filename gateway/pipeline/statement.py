"""The platform's CapabilityStatement, for all that depends on what it declares."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Mapping
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.capability import NO_CAPABILITY, TypeCapability, capabilities
from gateway.http.client.framing import UpstreamConnectionError
from gateway.http.client.response import UpstreamResponse
from gateway.http.content_coding import DECODABLE, decode_body
from gateway.pipeline.platform_client import PlatformClient
from gateway.telemetry.logs import get_logger

_log = get_logger(__name__)

MAX_WAIT: Final = {True: 5.0, False: 1.0}
"""Seconds that a guard waits for the first statement, by whether it blocks: to judge rightly."""

_LIFETIME: Final = 3600.0
_RETRY: Final = 60.0
_MAX_STATEMENT_BYTES: Final = 16 * 1024 * 1024
# The platform's entrance has lost its server, or has no time: they say nothing of a statement.
_UNAVAILABLE_STATUSES: Final = frozenset((429, 502, 503, 504))


class CapabilityCache:
    """Fetched when first needed and renewed every hour; the last one stays while there is none.

    `unavailable_reason`: why nobody knows yet what the platform declares; None also where it
    declares nothing.
    """

    def __init__(self, client: PlatformClient, credential: str, clock: Callable[[], float]) -> None:
        self._client = client
        self._credential = credential
        self._clock = clock
        self._by_type: Mapping[str, TypeCapability] | None = None
        self._due = clock()
        self._task: asyncio.Task[None] | None = None
        self.unavailable_reason: errors.Reason | None = errors.UPSTREAM_TIMEOUT

    def cached(self, resource: str) -> TypeCapability | None:
        """What is declared of a type, None where that is not known. Does not wait."""
        if self._task is None and self._clock() >= self._due:
            self._task = asyncio.get_running_loop().create_task(self._renew())
        return None if self._by_type is None else self._by_type.get(resource)

    async def wait_for(self, resource: str, longest_wait: float) -> TypeCapability | None:
        """The same; waits for the first statement, at most so many seconds."""
        found = self.cached(resource)
        if self._by_type is None and self._task is not None:
            await asyncio.wait((self._task,), timeout=longest_wait)
            found = self.cached(resource)
        return found

    async def declared_capability(self, resource: str, longest_wait: float) -> TypeCapability:
        """What is known to be declared: nothing, where nothing is known.

        The platform is asked at once, however short ago it could not be reached.
        """
        if self.unavailable_reason is not None:
            self._due = self._clock()
        return await self.wait_for(resource, longest_wait) or NO_CAPABILITY

    async def close(self) -> None:
        """End a fetch that is under way."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _renew(self) -> None:
        try:
            self._by_type = capabilities(await self._fetch())
            self.unavailable_reason = None
            self._due = self._clock() + _LIFETIME
        except (GatewayError, UpstreamConnectionError, ValueError) as error:
            why = error if isinstance(error, GatewayError) else "the platform's answer holds none"
            reason = error.reason if isinstance(error, GatewayError) else errors.UPSTREAM_NON_FHIR
            _log.warning(
                "no CapabilityStatement: %s", why, reason=reason.code, credential=self._credential
            )
            if self._by_type is None:
                self.unavailable_reason = None if isinstance(error, ValueError) else reason
            self._due = self._clock() + _RETRY
        finally:
            self._task = None

    async def _fetch(self) -> bytes:
        response = await self._client.get("/metadata", self._credential, str(uuid.uuid4()))
        try:
            if response.status in _UNAVAILABLE_STATUSES:
                raise GatewayError(errors.UPSTREAM_BUSY)
            if response.status != 200:
                raise ValueError("status")
            await response.prefetch(_MAX_STATEMENT_BYTES)
            return await _content(response) if response.is_complete else b""
        finally:
            response.close()


async def _content(response: UpstreamResponse) -> bytes:
    """The national platform compresses it, whatever it was asked for."""
    body, coding = response.buffered_body, response.content_coding
    if coding not in DECODABLE:
        return body
    return await asyncio.to_thread(decode_body, body, coding, _MAX_STATEMENT_BYTES)
