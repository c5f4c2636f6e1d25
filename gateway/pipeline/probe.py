"""The gateway's lightweight probe of the platform: `GET metadata`, sent as an ordinary request.

It takes a connection of the pool and a credential's token, and the circuit breaker counts it; it is
not an exchange of a caller. The response is turned into a signal and not kept.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conformity import is_error_page, media_type
from gateway.http.client.framing import UpstreamConnectionError
from gateway.http.client.response import UpstreamResponse
from gateway.http.content_coding import decode_prefix
from gateway.oauth.token import AccessToken
from gateway.pipeline.attempts import TokenProvider
from gateway.pipeline.platform_client import PlatformClient
from gateway.pipeline.upstream import connection_error
from gateway.telemetry.findings import (
    ANSWERS,
    FAILS,
    INCONCLUSIVE,
    NOT_FHIR,
    TIMEOUT,
    signal_of_non_fhir,
    signal_of_reason,
    signal_of_status,
)

# Limit of the body, both encoded and decoded; a longer one is not read to its end.
_INSPECTED_BYTES: Final = 1024 * 1024
_PROBE_TIMEOUT: Final = 60.0
_GZIP: Final = b"Accept-Encoding: gzip\r\n"
# The platform's validators and the fields that return them.
_VALIDATORS: Final = ((b"etag", b"If-None-Match"), (b"last-modified", b"If-Modified-Since"))
_WRONG_PATH_STATUSES: Final = frozenset((404, 405))


class ProbeTokenProvider:
    """Token provider for requests whose success proves nothing about the token.

    The metadata need no authentication.
    """

    def __init__(self, tokens: TokenProvider) -> None:
        self.current = tokens.current
        self.wait_for_token = tokens.wait_for_token
        self.replace_rejected = tokens.replace_rejected
        self.invalidate = tokens.invalidate
        self.on_fresh_token_rejected = tokens.on_fresh_token_rejected

    def on_token_accepted(self, credential: str, token: AccessToken) -> None:
        """Do nothing, so that rejections of this token continue to be counted."""


class PlatformProbe:
    """Probes with the current access token; without a valid one no request is sent."""

    def __init__(self, client: PlatformClient, tokens: TokenProvider) -> None:
        self._client = client
        self._tokens = tokens
        self._conditions: list[bytes] = []

    async def probe(self, credential: str) -> str | None:
        """Return the signal (`gateway.telemetry.findings`); None if nothing could be found out."""
        if self._tokens.current(credential) is None:
            return None
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                return await self._request_metadata(credential)
        except TimeoutError:
            return TIMEOUT

    async def _request_metadata(self, credential: str) -> str | None:
        try:
            return await self._probe_signal(credential)
        except (UpstreamConnectionError, GatewayError) as failure:
            error = _to_gateway_error(failure)
        if error.reason is errors.UPSTREAM_FAILED:
            # An idle connection may just have been closed, which shows nothing about the platform.
            try:
                return await self._probe_signal(credential)
            except (UpstreamConnectionError, GatewayError) as failure:
                error = _to_gateway_error(failure)
        if error.reason is errors.UPSTREAM_BUSY:
            # Callers use all connections: the platform responds to requests.
            return None
        return signal_of_reason(error.reason.code, error.upstream_status)

    async def _probe_signal(self, credential: str) -> str:
        field_lines = (_GZIP, *self._conditions)
        response = await self._client.get(
            "/metadata", credential, str(uuid.uuid4()), field_lines=field_lines, single_attempt=True
        )
        try:
            await response.prefetch(_INSPECTED_BYTES)
            signal = _signal_of_response(response)
            if response.status != 304:
                self._conditions = _validator_fields(response) if signal == ANSWERS else []
        finally:
            response.close()
        return signal


def _to_gateway_error(failure: UpstreamConnectionError | GatewayError) -> GatewayError:
    return connection_error(failure) if isinstance(failure, UpstreamConnectionError) else failure


def _signal_of_response(response: UpstreamResponse) -> str:
    status = response.status
    if status == 304:
        return ANSWERS
    body = decode_prefix(response.buffered_body, response.content_coding, _INSPECTED_BYTES)
    if is_error_page(media_type(response.content_type), body, None):
        return NOT_FHIR if status < 300 else signal_of_non_fhir(status)
    signal = signal_of_status(status)
    if signal == INCONCLUSIVE:
        # Every FHIR server has a CapabilityStatement at `metadata` (R5 http.html, section
        # 3.2.0.17).
        return NOT_FHIR if status in _WRONG_PATH_STATUSES else FAILS
    return signal


def _validator_fields(response: UpstreamResponse) -> list[bytes]:
    """Return conditional fields, so that the platform need not send an unchanged body again."""
    validators = ((field, response.fields.values.get(name)) for name, field in _VALIDATORS)
    return [b"%s: %s\r\n" % (field, value) for field, value in validators if value is not None]
