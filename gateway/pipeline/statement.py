"""A cache of the platform's CapabilityStatement, for all guards that depend on it."""

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
"""Seconds for which a guard waits for the first statement, by whether it blocks.

One that blocks waits longer, so that it does not reject a supported request.
"""

_LIFETIME: Final = 3600.0
_RETRY: Final = 60.0
_MAX_STATEMENT_BYTES: Final = 16 * 1024 * 1024
# Statuses of an overloaded platform, or of a proxy that cannot reach it: they show nothing about
# the statement.
_UNAVAILABLE_STATUSES: Final = frozenset((429, 502, 503, 504))


class CapabilityCache:
    """The CapabilityStatement, fetched when first needed and refreshed every hour.

    If a refresh fails, the last statement is kept. `unavailable_reason`: why it is not known yet
    what the platform declares; None also where the platform declares nothing.
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
        """Return what is declared for a type, None where that is not known.

        Does not wait, but starts a fetch in the background where one is due.
        """
        if self._task is None and self._clock() >= self._due:
            self._task = asyncio.get_running_loop().create_task(self._renew())
        return None if self._by_type is None else self._by_type.get(resource)

    async def wait_for(self, resource: str, max_wait: float) -> TypeCapability | None:
        """Do as `cached`, but wait for the first statement, at most `max_wait` seconds."""
        found = self.cached(resource)
        if self._by_type is None and self._task is not None:
            await asyncio.wait((self._task,), timeout=max_wait)
            found = self.cached(resource)
        return found

    async def declared_capability(self, resource: str, max_wait: float) -> TypeCapability:
        """Return what is known to be declared; `NO_CAPABILITY` where nothing is known.

        As long as no statement could be fetched, each call fetches it at once, however recent the
        last failure is.
        """
        if self.unavailable_reason is not None:
            self._due = self._clock()
        return await self.wait_for(resource, max_wait) or NO_CAPABILITY

    async def close(self) -> None:
        """Cancel a fetch in progress."""
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
    """Return the decoded body; the national platform ignores Accept-Encoding and compresses."""
    body, coding = response.buffered_body, response.content_coding
    if coding not in DECODABLE:
        return body
    return await asyncio.to_thread(decode_body, body, coding, _MAX_STATEMENT_BYTES)
