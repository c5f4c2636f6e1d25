"""Why there is no connection to the platform: an outcome for the caller, a sentence for the log.

The sentences name the platform as the settings do and show nothing that it sent.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Final, Protocol

from gateway import errors
from gateway.errors import GatewayError
from gateway.http.client.proxy_tunnel import ProxyTunnelError
from gateway.http.client.tls import refuses_certificate

RETRY_AFTER: Final = 5.0
NOT_ACCEPTED: Final = "did not accept our certificate, or wants one: see platform.client_cert_file"

# OpenSSL's numbers (X509_V_ERR_…).
_NOT_AT_THIS_TIME: Final = frozenset({9, 10})
_OTHER_NAME: Final = frozenset({62, 64})
# What TLS makes of an answer in plain HTTP.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})


class Destination(Protocol):
    """Where the platform listens."""

    @property
    def host(self) -> str:
        """The host's name or address."""
        ...

    @property
    def port(self) -> int:
        """The port."""
        ...


def unreached(
    error: OSError, place: Destination, timeout: float, proxy: Destination | None = None
) -> GatewayError:
    """The outcome of a failed attempt to connect within `timeout` seconds; nothing was sent.

    `proxy` is what should have led there, if anything.
    """
    where = f"{place.host} port {place.port}"
    if isinstance(error, ssl.SSLError):
        return GatewayError(errors.UPSTREAM_TLS, _tls(error, place.host, where))
    # After a time-out the caller has waited long enough: no other attempt follows.
    repeatable = not isinstance(error, TimeoutError)
    return GatewayError(
        errors.UPSTREAM_UNREACHABLE,
        _no_way(error, place, timeout, proxy),
        retry_after=RETRY_AFTER,
        is_retryable=repeatable,
    )


def _no_way(error: OSError, place: Destination, timeout: float, proxy: Destination | None) -> str:
    where = f"{place.host} port {place.port}"
    if proxy is None:
        return _connection(error, place.host, where, timeout, "platform.fhir_base_url")
    by = f"the proxy {proxy.host} port {proxy.port}"
    if isinstance(error, ProxyTunnelError):
        return f"{by} gave no tunnel to {where}: {error.why}"
    told = _connection(error, proxy.host, by, timeout, "platform.proxy_url")
    return f"{told}; {where} is behind it"


def _connection(error: OSError, host: str, where: str, timeout: float, key: str) -> str:
    if isinstance(error, TimeoutError):
        return f"no connection to {where} within {timeout:g} s, as behind a firewall"
    if isinstance(error, socket.gaierror):
        return f"the host name {host} of {key} cannot be resolved"
    if isinstance(error, ConnectionRefusedError):
        return f"no connection to {where}: nothing listens there, or a firewall is between"
    if isinstance(error, ConnectionResetError | ConnectionAbortedError | BrokenPipeError):
        return f"{where} ended the connection while it was being made"
    reason = os.strerror(error.errno).lower() if error.errno else "unknown reason"
    return f"no connection to {where}: {reason}"


def _tls(error: ssl.SSLError, host: str, where: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _NOT_AT_THIS_TIME:
            return f"the certificate of {where} is not valid at this time; check the clock first"
        if error.verify_code in _OTHER_NAME:
            return f"the certificate of {where} belongs to another name than {host}"
        return f"the certificate of {where} is not trusted; its CA goes into platform.ca_file"
    if refuses_certificate(error):
        return f"{where} {NOT_ACCEPTED}"
    if error.reason in _NO_TLS:
        return f"{where} does not speak TLS"
    reason = (error.reason or "unknown reason").replace("_", " ").lower()
    return f"no secure connection to {where}: TLS failed ({reason})"
