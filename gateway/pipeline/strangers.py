"""Requests that no caller stands behind: how many of them one address may make.

Whoever is a caller is never touched, whatever others do at the same address: only what turned out
to be nobody's is counted, and only that is refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.http.headers import RequestHeader
from gateway.http.server.connection import IncomingRequest
from gateway.http.server.peer import Peer
from gateway.pipeline.callers import AuthResult, CallerRegistry
from gateway.pipeline.limits import TokenBucket

_MAX_ADDRESSES: Final = 4096
# So many seconds' worth of requests may come at once: a system whose key was changed asks again.
_BURST: Final = 10
# Of IPv6 a household or an office has so many bits for itself.
_IPV6_CUSTOMER_PREFIX: Final = 64


class UnidentifiedLimiter:
    """A token bucket for each address, of the last few thousand; `rate` None: no limit.

    `signs_in`: people can sign in, so without callers it is not everybody who may call.
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
        """Count a request of nobody's. Raises `GatewayError` rate-limited."""
        if self._rate is not None:
            self._bucket(address, self._rate).take()

    def seconds_until_available(self, address: str) -> float:
        """How long until one more of nobody's requests would pass, in seconds."""
        return (
            0.0
            if self._rate is None
            else self._bucket(address, self._rate).seconds_until_available()
        )

    def _bucket(self, address: str, rate: float) -> TokenBucket:
        home = client_network(address)
        bucket: TokenBucket | None = self._buckets.get(home)
        if bucket is None:
            bucket = self._buckets[home] = TokenBucket(rate, int(_BURST * rate), self._clock)
        return bucket

    def exceeds_limit(self, address: str) -> bool:
        """Count a request of nobody's; whether it is beyond the limit."""
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
        error: GatewayError,
    ) -> GatewayError:
        """What to answer a request that failed before it was known who asks.

        The `error` itself, if it is a caller's or one of few; else rate-limited.
        """
        peer = self._callers.resolve_peer(request.connection.peer, header)
        exchange.remote = peer.address
        if self._belongs_to_caller(peer, header, auth, exchange):
            return error
        try:
            self.consume(peer.address)
        except GatewayError as too_many:
            exchange.is_audit_skipped = True
            # What was sent ahead would only be more of the same; the rest may be unreadable.
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
        who: AuthResult | CallerRegistry = self._callers if auth is None else auth
        try:
            exchange.caller = who.identify(peer, header).name
        except GatewayError as error:
            # Where it cannot be told at present, as without the sessions' store, nobody is blamed.
            return error.status >= 500
        return True


def client_network(address: str) -> str:
    """The address, or the network that IPv6 gives to one customer; all that is none is one."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _IPV6_CUSTOMER_PREFIX), strict=False))
