"""Rate limit for requests without an identified caller, by client address.

Identified callers are never limited here, whatever other clients at the same address do: only
requests that no caller could be identified for are counted, and only those are rejected.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from gateway.errors import GatewayError
from gateway.http.server.peer import Peer, parse_address
from gateway.pipeline.admission import TokenBucket

if TYPE_CHECKING:
    from gateway.exchange import Exchange
    from gateway.http.headers import RequestHeader
    from gateway.http.server.caller_connection import IncomingRequest
    from gateway.pipeline.callers import AuthResult, CallerRegistry

_MAX_ADDRESSES: Final = 4096
# Seconds' worth of requests that may come at once: a system whose key was changed sends retries.
_BURST: Final = 10
# Prefix length of the IPv6 network that a household or an office gets.
_IPV6_CUSTOMER_PREFIX: Final = 64


class UnidentifiedLimiter:
    """One token bucket for each of the last few thousand addresses; `rate` None: no limit.

    `signs_in`: users can sign in, so that without configured callers not every request is of a
    caller.
    """

    def __init__(
        self,
        callers: CallerRegistry,
        rate: float | None,
        clock: Callable[[], float],
        *,
        signs_in: bool,
    ) -> None:
        self._callers = callers
        self._rate = rate
        self._clock = clock
        self._has_identification = callers.has_named_callers or not signs_in
        self._buckets: LRUCache[str, TokenBucket] = LRUCache(_MAX_ADDRESSES)

    def consume(self, address: str) -> None:
        """Count a request without an identified caller. Raises `GatewayError` rate-limited."""
        if self._rate is not None:
            self._bucket(address, self._rate).take()

    def seconds_until_available(self, address: str) -> float:
        """Return the seconds until one more unidentified request would be admitted."""
        return (
            0.0
            if self._rate is None
            else self._bucket(address, self._rate).seconds_until_available()
        )

    def _bucket(self, address: str, rate: float) -> TokenBucket:
        network = client_network(address)
        bucket: TokenBucket | None = self._buckets.get(network)
        if bucket is None:
            bucket = self._buckets[network] = TokenBucket(rate, int(_BURST * rate), self._clock)
        return bucket

    def exceeds_limit(self, address: str) -> bool:
        """Count a request without an identified caller; return whether it exceeds the limit."""
        try:
            self.consume(address)
        except GatewayError:
            return True
        return False

    def limit_error(
        self,
        request: IncomingRequest,
        header: RequestHeader,
        exchange: Exchange,
        auth: AuthResult | None,
        error: Exception,
    ) -> Exception:
        """Return the error to send for a request that failed.

        It is `error` if the request belongs to a caller or is within the limit; else rate-limited.
        """
        if exchange.credential is not None or not isinstance(error, GatewayError):
            return error
        peer = self._callers.resolve_peer(request.connection.peer, header)
        exchange.remote = peer.address
        if self._belongs_to_caller(peer, header, auth, exchange):
            return error
        try:
            self.consume(peer.address)
        except GatewayError as too_many:
            exchange.is_audit_skipped = True
            # Pipelined requests would most likely fail in the same way, and the rest may be
            # unparsable.
            too_many.close_connection = (
                error.close_connection or request.connection.has_pipelined_requests
            )
            return too_many
        return error

    def _belongs_to_caller(
        self, peer: Peer, header: RequestHeader, auth: AuthResult | None, exchange: Exchange
    ) -> bool:
        if auth is None and not self._has_identification:
            return False
        authenticator: AuthResult | CallerRegistry = self._callers if auth is None else auth
        try:
            exchange.caller = authenticator.identify(peer, header).name
        except GatewayError as error:
            # A failure such as an unreachable session store says nothing about the client, so that
            # the request is not counted.
            return error.status >= 500
        return True


def client_network(address: str) -> str:
    """Return the key an address is limited by.

    It is the IPv4 address, or the /64 of an IPv6 address; "" for anything else.
    """
    ip = parse_address(address)
    if ip is None:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    return str(ipaddress.ip_network((ip, _IPV6_CUSTOMER_PREFIX), strict=False))
