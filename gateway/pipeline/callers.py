"""Identifies callers by network, API key, HTTP Basic or client certificate.

A secret is looked up by its digest with a random key, so that the duration reveals neither how much
of it was right nor the position of its caller in the settings, and does not grow with the number of
callers; networks and names of certificates are looked up as well. Nothing here waits. The user and
the purpose of use that a caller asserts are recorded and never forwarded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import ipaddress
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.vocabulary import PURPOSES
from gateway.field_values import is_same_origin, normalized_field_name
from gateway.http.server.peer import Peer, parse_address
from gateway.pipeline.permissions import ALLOW_ALL, Permissions

if TYPE_CHECKING:
    from gateway.http.headers import RawHeaders, RequestHeader
    from gateway.oauth.token_store import TokensInUse as TokenSource
    from gateway.oauth.tokens import Tokens
    from gateway.pipeline.admission import ConcurrencyLimiter, TokenBucket
    from gateway.pipeline.own_replies import LocalResponder
    from gateway.secret import Secret

    # A union, because mypyc would look up a class at run time.
    TokensInUse: TypeAlias = TokenSource | Tokens

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

# The address of an unidentifiable node, as RFC 7239 names it (section 6.2); it is in no network.
UNKNOWN_ADDRESS: Final = "unknown"
_ZONE: Final = r"(?:%[A-Za-z0-9._\-]+)?"
_V6: Final = r"([0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)" + _ZONE
_HOP: Final = re.compile(
    rf'(")?(?:(?:([0-9.]+)|\[{_V6}\])(?::[0-9]{{1,5}})?|{_V6})(?(1)")'
).fullmatch

_CROSS_SITE_HINT: Final = (
    "Origin: needs a caller with a key (callers[].api_key_file), or, with the sign-in, the page's "
    "origin in login.cors_origins"
)

# Items of X-Forwarded-For that are examined; of a longer list, the farthest of these is taken for
# the caller.
_MAX_HOPS: Final = 64


NO_TOKENS: Final = cast("TokensInUse", None)
"""For callers whose requests never reach the platform, such as the operators of the pages."""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller: its name in metrics and audit, its access tokens, and its permissions and limits.

    `tokens` is where the tokens of its requests come from. `user` is the signed-in user.
    `user_header` and `purpose_header` (in lower case) are the fields in which the caller names its
    user and the purpose of use. `outbox` says which writes may be queued: `off`, `on-request` (with
    `Prefer: respond-async`) or `always`. `content_type` is the type assumed for a body without a
    type, or declared as plain text.
    """

    name: str
    tokens: TokensInUse = NO_TOKENS
    permissions: Permissions = ALLOW_ALL
    rate: TokenBucket | None = None
    slots: ConcurrencyLimiter | None = None
    user: str | None = None
    outbox: str = "on-request"
    user_header: bytes | None = None
    purpose_header: bytes | None = None
    content_type: bytes | None = None

    @property
    def credential(self) -> str:
        """The name in metrics and audit of the credential whose tokens are used."""
        return self.tokens.name


ANONYMOUS: Final = Caller("anonymous")


@dataclass(frozen=True, slots=True)
class CallerMatcher:
    """How one caller is recognized.

    Every configured criterion must match; of API key and HTTP Basic, one suffices.
    """

    caller: Caller
    networks: tuple[IPNetwork, ...] = ()
    api_key: Secret | None = field(default=None, repr=False)
    username: str | None = None
    password: Secret | None = field(default=None, repr=False)
    certificate_names: frozenset[str] = frozenset()

    @property
    def has_secret(self) -> bool:
        """Whether an API key or a password is needed."""
        return self.api_key is not None or self.password is not None


@dataclass(frozen=True, slots=True)
class AuthResult:
    """Result of authentication done before the handler: a caller or an error.

    It takes the place of `CallerRegistry`. `extra_field_lines` are added to every response.
    `expired_session_responder` responds to the user when the session turns out to have expired.
    """

    extra_field_lines: bytes
    caller: Caller | None = None
    error: GatewayError | None = None
    expired_session_responder: LocalResponder | None = None

    def identify(self, _peer: Peer, _header: RequestHeader) -> Caller:
        """Return the caller.

        Raises `GatewayError` caller-unauthenticated, -unknown or -forbidden.
        """
        if self.caller is None:
            raise self.error or GatewayError(errors.CALLER_UNAUTHENTICATED)
        return self.caller


class CallerRegistry:
    """Identifies the caller of a request; without `matchers`, every caller is `anonymous`.

    X-Forwarded-For is trusted only if it comes from one of the `trusted_proxies`.
    `has_named_callers`: the settings name any caller.
    """

    def __init__(
        self,
        matchers: Sequence[CallerMatcher] = (),
        trusted_proxies: tuple[IPNetwork, ...] = (),
        anonymous: Caller = ANONYMOUS,
    ) -> None:
        self._anonymous = anonymous
        self._trusted_proxies = trusted_proxies
        self.has_named_callers = bool(matchers)
        # A new one for each registry: it is in no file, and digests of two starts differ.
        self._digest_key = secrets.token_bytes(32)
        keys = [(each.api_key.reveal(), each) for each in matchers if each.api_key is not None]
        passwords = [
            (f"{each.username}:{each.password.reveal()}", each)
            for each in matchers
            if each.password is not None
        ]
        self._keys = self._tables_by_digest(keys)
        self._passwords = self._tables_by_digest(passwords)
        self._without_secret = _PeerTable([each for each in matchers if not each.has_secret])
        self._with_secret = _PeerTable([each for each in matchers if each.has_secret])
        self._challenges = _challenges(bool(passwords), bool(keys))

    def resolve_peer(self, peer: Peer, header: RequestHeader) -> Peer:
        """Return the peer's address, resolved through trusted proxies by X-Forwarded-For.

        The field is read from the right: everything left of the first address that is not a trusted
        proxy's was written by that peer and proves nothing. Where an item is no address, the caller
        is at `UNKNOWN_ADDRESS`, not at the address of the proxy that added the item.
        """
        if not self._trusted_proxies or not _is_in(peer.address, self._trusted_proxies):
            return peer
        forwarded = header.text(b"x-forwarded-for")
        hops = () if forwarded is None else forwarded.rsplit(",", _MAX_HOPS)[-_MAX_HOPS:]
        for hop in reversed(hops):
            peer = Peer(_parse_forwarded_for(hop))
            if not _is_in(peer.address, self._trusted_proxies):
                break
        return peer

    def identify(self, peer: Peer, header: RequestHeader) -> Caller:
        """Return the caller.

        Raises `GatewayError` caller-unauthenticated, caller-unknown or caller-forbidden.
        """
        if not self.has_named_callers:
            _reject_cross_site(header)
            return self._anonymous
        presented = self._presented_secret(header)
        if presented is None:
            return self._match_network(peer)
        table = presented[0].get(self._digest(presented[1]))
        if table is None:
            raise GatewayError(
                errors.CALLER_UNKNOWN, "wrong key or password", headers=self._challenges
            )
        caller = table.find(peer)
        if caller is None:
            raise GatewayError(errors.CALLER_FORBIDDEN, "origin", hint="network or certificate")
        return caller

    def presents_known_secret(self, header: RequestHeader) -> bool:
        """Return whether the header presents a key or password, right or wrong, as callers use."""
        return self._presented_secret(header) is not None

    def _presented_secret(
        self, header: RequestHeader
    ) -> tuple[dict[bytes, _PeerTable], bytes] | None:
        """Return the key or password in the header, and the tables of its kind, by digest.

        A field that no caller is configured with is ignored.
        """
        key = header.values.get(b"x-api-key") if self._keys else None
        if key is not None:
            return self._keys, key
        basic = _basic(header.values.get(b"authorization")) if self._passwords else None
        return None if basic is None else (self._passwords, basic)

    def _match_network(self, peer: Peer) -> Caller:
        caller = self._without_secret.find(peer)
        if caller is not None:
            return caller
        if self._with_secret.find(peer) is not None:
            raise GatewayError(
                errors.CALLER_UNAUTHENTICATED, "no key or password", headers=self._challenges
            )
        raise GatewayError(errors.CALLER_FORBIDDEN, "origin", hint="network or certificate")

    def _tables_by_digest(
        self, callers: Iterable[tuple[str, CallerMatcher]]
    ) -> dict[bytes, _PeerTable]:
        found: dict[bytes, list[CallerMatcher]] = {}
        for secret, matcher in callers:
            found.setdefault(self._digest(secret.encode()), []).append(matcher)
        return {digest: _PeerTable(matchers) for digest, matchers in found.items()}

    def _digest(self, secret: bytes) -> bytes:
        return hashlib.blake2b(secret, key=self._digest_key, digest_size=32).digest()


# IP version, number of bits behind the prefix, and the prefix as a number.
_Prefix: TypeAlias = tuple[int, int, int]


class _PeerTable:
    """Finds the first of some callers that may come from an address with a certificate.

    Networks are looked up by their prefixes, once for each length that occurs.
    """

    def __init__(self, matchers: Sequence[CallerMatcher]) -> None:
        self._callers = [matcher.caller for matcher in matchers]
        # The position of the first caller, by the network it must be in, None for any, and by the
        # name that its certificate must have, "" for none.
        self._positions: dict[_Prefix | None, dict[str, int]] = {}
        for position, matcher in enumerate(matchers):
            prefixes: list[_Prefix | None] = [
                _prefix(each.network_address, each.max_prefixlen - each.prefixlen)
                for each in matcher.networks
            ]
            for prefix in prefixes or [None]:
                positions = self._positions.setdefault(prefix, {})
                for name in matcher.certificate_names or ("",):
                    positions.setdefault(name, position)
        self._lengths = {prefix[:2] for prefix in self._positions if prefix is not None}

    def find(self, peer: Peer) -> Caller | None:
        """Return the first caller in the order of the settings, None if there is none."""
        prefixes: list[_Prefix | None] = [None]
        ip = parse_address(peer.address) if self._lengths else None
        if ip is not None:
            lengths = [bits for version, bits in self._lengths if version == ip.version]
            prefixes += [_prefix(ip, host_bits) for host_bits in lengths]
        names = ("", *peer.certificate_names)
        tables = [self._positions[prefix] for prefix in prefixes if prefix in self._positions]
        found = [table[name] for table in tables for name in names if name in table]
        return self._callers[min(found)] if found else None


def _prefix(address: ipaddress.IPv4Address | ipaddress.IPv6Address, host_bits: int) -> _Prefix:
    return address.version, host_bits, int(address) >> host_bits


def _reject_cross_site(header: RequestHeader) -> None:
    """Reject requests of web pages of other origins where every caller is anonymous.

    Such a page could call from a browser on this machine. Old systems are not browsers: they send
    neither field (Fetch standard, Fetch Metadata). Raises `GatewayError` caller-forbidden.
    """
    values = header.values
    is_cross_site = values.get(b"sec-fetch-site", b"").strip().lower() == b"cross-site"
    # Some programs send an empty Origin.
    origin = (header.text(b"origin") or "").strip()
    if origin and not is_same_origin(origin, header.text(b"host") or ""):
        is_cross_site = True
    if is_cross_site:
        detail = "web page of another origin"
        raise GatewayError(
            errors.CALLER_FORBIDDEN, detail, hint=_CROSS_SITE_HINT, advice_key="foreign-page"
        )


def _parse_forwarded_for(hop: str) -> str:
    """Return the address in an item of X-Forwarded-For.

    The item may have a port, brackets, quotes or a zone.
    """
    match = _HOP(hop.strip(" \t"))
    if match is None:
        return UNKNOWN_ADDRESS
    address = parse_address(match[2] or match[3] or match[4])
    return UNKNOWN_ADDRESS if address is None else str(address)


def _is_in(address: str, networks: Iterable[IPNetwork]) -> bool:
    ip = parse_address(address)
    return ip is not None and any(
        ip.version == network.version and ip in network for network in networks
    )


def _basic(authorization: bytes | None) -> bytes | None:
    """Return user name and password (RFC 7617), joined by a colon; b"" if undecodable."""
    if authorization is None:
        return None
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return base64.b64decode(encoded.strip(), validate=True)
    except binascii.Error:
        return b""


def _challenges(basic: bool, key: bool) -> tuple[tuple[str, str], ...]:
    """Return the challenges: RFC 9110 section 11.6.1 requires at least one with a 401."""
    challenges = []
    if basic or not key:
        challenges.append(("WWW-Authenticate", 'Basic realm="dhp-gateway", charset="UTF-8"'))
    if key:
        challenges.append(("WWW-Authenticate", 'ApiKey realm="dhp-gateway", header="X-Api-Key"'))
    return tuple(challenges)


# Characters of a value; longer values are cut.
_MAX_VALUE_LENGTH: Final = 256


class AssertedIdentity:
    """What a caller's fields assert: `user`, and `purpose` if it is in the national value set."""

    __slots__ = ("_names", "purpose", "user")

    def __init__(self, caller: Caller, raw: RawHeaders) -> None:
        self.user = _text(raw, caller.user_header)
        purpose = (_text(raw, caller.purpose_header) or "").upper()
        self.purpose = purpose if purpose in PURPOSES else None
        names = (caller.user_header, caller.purpose_header)
        self._names = frozenset(normalized_field_name(name) for name in names if name is not None)

    def strip_fields(self, field_lines: list[bytes]) -> list[bytes]:
        """Return the field lines, or names of fields, without the asserting fields.

        All spellings that a server may treat as the same field name are removed.
        """
        return [
            line
            for line in field_lines
            if normalized_field_name(line.partition(b":")[0]) not in self._names
        ]


def _text(raw: RawHeaders, name: bytes | None) -> str | None:
    """Return all values of a field as one text of printable characters, None if it is empty."""
    values = [value for key, value in raw if key.lower() == name]
    text = b", ".join(values).decode("utf-8", "replace")
    printable = "".join(
        character if character.isprintable() else "\ufffd" for character in text[:_MAX_VALUE_LENGTH]
    )
    return printable.strip() or None
