"""Requests of the gateway itself to the platform, with a credential's access token.

The gateway's lightweight probe is `GET metadata`, sent as an ordinary request. It takes a
connection of the pool and a credential's token; it is not an exchange of a caller. The response is
turned into a signal and not kept.

`CapabilityCache` caches the platform's CapabilityStatement, for all guards that depend on it.

Both ask with any credential that has a token, and with the next one where the platform refuses it:
one client that is refused says nothing about the platform.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.fhir.capability_statement import (
    MAX_STATEMENT_BYTES,
    NO_CAPABILITY,
    TypeCapability,
    capabilities,
    implementation_url,
)
from gateway.fhir.content_negotiation import is_error_page, media_type
from gateway.fhir.links.link_map import LinkMap, parse_base
from gateway.health.evidence import (
    ANSWERS,
    REFUSES,
    TIMEOUT,
    has_failed,
    signal_of_metadata,
    signal_of_reason,
)
from gateway.http.client.response_head import UpstreamConnectionError
from gateway.http.content_coding import DECODABLE, decode_body, decode_prefix
from gateway.pipeline.upstream import TokenRetry, UpstreamRequest, connection_error
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.oauth.token_store import TokensInUse
    from gateway.oauth.tokens import Tokens

_log = get_logger(__name__)

_ACCEPT: Final = (b"Accept: application/fhir+json\r\n", b"Accept-Encoding: identity\r\n")


class PlatformClient:
    """Reads from the platform; `platform_path` is its base path without a final slash."""

    def __init__(self, forwarder: TokenRetry, platform_path: str) -> None:
        self._forwarder = forwarder
        self.platform_path = platform_path

    async def get(
        self,
        suffix: str,
        tokens: TokensInUse,
        request_id: str,
        *,
        field_lines: Sequence[bytes] = (),
        single_attempt: bool = False,
    ) -> UpstreamResponse:
        """Return the response to a GET; the calling code closes it. Raises `GatewayError`.

        `field_lines` are additional fields. `single_attempt`: a request to which the platform
        responded is not retried, and it is sent also while the circuit is open.
        """
        outgoing = UpstreamRequest(
            method="GET",
            target=(self.platform_path + suffix).encode("ascii"),
            field_lines=[*_ACCEPT, *field_lines],
            request_id=request_id,
            body=None,
            is_retryable=not single_attempt,
            allow_when_open=single_attempt,
            # The metadata need no authentication.
            proves_token=suffix != "/metadata",
        )
        return await self.send(outgoing, tokens)

    async def send(
        self, outgoing: UpstreamRequest, tokens: TokensInUse, caller: str = "anonymous"
    ) -> UpstreamResponse:
        """Return the response, which the calling code closes. Raises `GatewayError`.

        `caller` is the name by which connections are shared.
        """
        token = tokens.current() or await tokens.wait_for_token()
        # There is no exchange with a caller: what is recorded in this one is not read.
        exchange = Exchange(
            request_id=outgoing.request_id, started_at=0.0, started_monotonic=0.0, caller=caller
        )
        return await self._forwarder.send(exchange, outgoing, tokens, token)


async def fetch_etag(
    client: PlatformClient, suffix: str, tokens: TokensInUse, request_id: str
) -> bytes | None:
    """Return the current ETag of a resource at the platform, or None. Raises `GatewayError`."""
    response = await client.get(suffix, tokens, request_id)
    try:
        etag = response.field(b"etag") if response.status == 200 else None
        return None if etag is None else etag.encode("latin-1")
    finally:
        response.close()


MAX_WAIT: Final = {True: 5.0, False: 1.0}
"""Seconds for which a guard waits for the first statement, by whether it blocks.

One that blocks waits longer, so that it does not reject a supported request.
"""

_STATEMENT_LIFETIME: Final = 3600.0
_STATEMENT_RETRY_DELAY: Final = 60.0
# Seconds between two fetches where the platform answers requests, but gives no statement.
_MIN_RETRY_DELAY: Final = 5.0


Candidates = Callable[[], Sequence["Tokens"]]
"""Returns the tokens to ask with, in this order."""


class CapabilityCache:
    """The CapabilityStatement, fetched when first needed and refreshed every hour.

    If a refresh fails, the last statement is kept. `unavailable_reason`: why the platform could not
    be asked yet what it declares; None also where what it answers is no statement. `is_known`: it
    has shown a statement, or said that it has none; an error of the server or a page is neither.
    `links`: of the platform and its aliases, None if links are not rewritten.
    """

    def __init__(
        self,
        client: PlatformClient,
        candidates: Candidates,
        clock: Callable[[], float],
        links: LinkMap | None,
    ) -> None:
        self._client = client
        self._candidates = candidates
        self._clock = clock
        self._links = links
        self._by_type: Mapping[str, TypeCapability] | None = None
        self._due = clock()
        self._asked_at = self._due - _MIN_RETRY_DELAY
        self._task: asyncio.Task[None] | None = None
        self.unavailable_reason: errors.Reason | None = errors.UPSTREAM_TIMEOUT
        self.is_known = False

    def take_over(self, before: CapabilityCache) -> None:
        """Keep what the cache of earlier settings knows of the same platform."""
        if before._by_type is not None:
            self._by_type, self.unavailable_reason = before._by_type, None
            self._due, self.is_known = before._due, True

    def on_platform_response(self) -> None:
        """Make the next fetch due: the platform answers, and the statement is not known yet."""
        if not self.is_known:
            self._due = min(self._due, self._asked_at + _MIN_RETRY_DELAY)

    def cached(self, resource: str) -> TypeCapability | None:
        """Return what is declared for a type, None where that is not known.

        Does not wait, but starts a fetch in the background where one is due.
        """
        if self._task is None and self._clock() >= self._due:
            self._asked_at = self._clock()
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
            statement = await self._fetch()
            is_first, self._by_type = self._by_type is None, capabilities(statement)
            self.unavailable_reason, self.is_known = None, True
            self._due = self._clock() + _STATEMENT_LIFETIME
            if is_first:
                self._check_base(statement)
        except (GatewayError, UpstreamConnectionError, ValueError) as error:
            why = error if isinstance(error, GatewayError) else "the platform's answer holds none"
            reason = error.reason if isinstance(error, GatewayError) else errors.UPSTREAM_NON_FHIR
            _log.warning("no CapabilityStatement: %s", why, reason=reason.code)
            if self._by_type is None:
                self.unavailable_reason = None if isinstance(error, ValueError) else reason
            # Another credential may have a token soon.
            delay = _MIN_RETRY_DELAY if reason in _OF_CREDENTIAL else _STATEMENT_RETRY_DELAY
            self._due = self._clock() + delay
        finally:
            self._task = None

    def _check_base(self, statement: bytes) -> None:
        """Warn if the statement names the platform by a base URL that the settings lack."""
        url = implementation_url(statement)
        if url is None or self._links is None or self._links.suffix(url) is not None:
            return
        with contextlib.suppress(ValueError):  # no base URL
            _log.warning(
                "implementation.url of the platform is %s:"
                " if its links begin in this way, add that to rewrite.aliases",
                parse_base(url).text,
            )

    async def _fetch(self) -> bytes:
        refusal: Exception = GatewayError(errors.SSO_UNAVAILABLE, "no credential has a token")
        for tokens in self._candidates():
            try:
                return await self._fetch_with(tokens)
            except GatewayError as error:
                if error.reason not in _OF_CREDENTIAL:
                    raise
                refusal = error
        raise refusal

    async def _fetch_with(self, tokens: Tokens) -> bytes:
        """Return the statement. Raises `GatewayError` token-rejected for a refused client."""
        response = await self._client.get("/metadata", tokens, str(uuid.uuid4()))
        try:
            if response.status in (401, 403):
                raise GatewayError(errors.TOKEN_REJECTED, upstream_status=response.status)
            if has_failed(response.status):
                # This shows nothing about the statement.
                raise GatewayError(errors.UPSTREAM_BUSY)
            if response.status != 200:
                self.is_known = 400 <= response.status < 500
                raise ValueError("status")
            await response.prefetch(MAX_STATEMENT_BYTES)
            return await _content(response) if response.is_complete else b""
        finally:
            response.close()


# Failures of one credential: requests with another one may succeed.
_OF_CREDENTIAL: Final = frozenset(
    (errors.TOKEN_REFUSED, errors.TOKEN_REJECTED, errors.SSO_UNAVAILABLE)
)


async def _content(response: UpstreamResponse) -> bytes:
    """Return the decoded body; the national platform ignores Accept-Encoding and compresses."""
    body, coding = response.buffered_body, response.content_coding
    if coding not in DECODABLE:
        return body
    return await asyncio.to_thread(decode_body, body, coding, MAX_STATEMENT_BYTES)


# Limit of the body, both encoded and decoded; a longer one is not read to its end. A probe
# shows whether a FHIR server responds and accepts the client, not how good its statement is.
_MAX_PROBE_BYTES: Final = 1024 * 1024
# Seconds until the header, and until the end: a long statement takes its time on a slow line.
_HEADER_TIMEOUT: Final = 10.0
_PROBE_TIMEOUT: Final = 30.0
_ACCEPT_GZIP: Final = b"Accept-Encoding: gzip\r\n"
# The platform's validators and the fields that return them.
_VALIDATORS: Final = ((b"etag", b"If-None-Match"), (b"last-modified", b"If-Modified-Since"))


class PlatformProbe:
    """Probes with current access tokens; without a valid one no request is sent."""

    def __init__(self, client: PlatformClient, candidates: Candidates) -> None:
        self._client = client
        self._candidates = candidates
        self._conditions: list[bytes] = []

    async def probe(self) -> tuple[str, str] | None:
        """Return the signal (`gateway.health.evidence`) and the credential used, None without one.

        A credential is only reported as refused where all are.
        """
        result: tuple[str, str] | None = None
        for tokens in self._candidates():
            if tokens.current() is None:
                continue
            signal = await self._signal(tokens)
            if signal is not None:
                result = signal, tokens.name
            if signal != REFUSES:
                break
        return result

    async def _signal(self, tokens: Tokens) -> str | None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                return await self._request_metadata(tokens)
        except TimeoutError:
            return TIMEOUT

    async def _request_metadata(self, tokens: Tokens) -> str | None:
        # An idle connection may just have been closed, which shows nothing about the platform.
        for _ in range(2):
            try:
                return await self._signal_of_metadata(tokens)
            except (UpstreamConnectionError, GatewayError) as failure:
                error = connection_error(failure)
            if error.reason is not errors.UPSTREAM_FAILED:
                break
        return signal_of_reason(error.reason.code, error.upstream_status)

    async def _signal_of_metadata(self, tokens: Tokens) -> str:
        field_lines = (_ACCEPT_GZIP, *self._conditions)
        async with asyncio.timeout(_HEADER_TIMEOUT):
            response = await self._client.get(
                "/metadata", tokens, str(uuid.uuid4()), field_lines=field_lines, single_attempt=True
            )
        try:
            await response.prefetch(_MAX_PROBE_BYTES)
            signal = _signal_of_response(response)
            if response.status != 304:
                self._conditions = _validator_fields(response) if signal == ANSWERS else []
        finally:
            response.close()
        return signal


def _signal_of_response(response: UpstreamResponse) -> str:
    status = response.status
    if status == 304:
        return ANSWERS
    body = decode_prefix(response.buffered_body, response.content_coding, _MAX_PROBE_BYTES)
    is_page = is_error_page(media_type(response.content_type), body, None)
    return signal_of_metadata(status, is_fhir=not is_page)


def _validator_fields(response: UpstreamResponse) -> list[bytes]:
    """Return conditional fields, so that the platform need not send an unchanged body again."""
    validators = ((field, response.fields.values.get(name)) for name, field in _VALIDATORS)
    return [b"%s: %s\r\n" % (field, value) for field, value in validators if value is not None]
