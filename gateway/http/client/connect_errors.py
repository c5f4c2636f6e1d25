"""Converts a failed connection to the platform to an error for the caller and a log sentence.

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
from gateway.http.client.tls import is_certificate_alert

RETRY_AFTER: Final = 5.0
NOT_ACCEPTED: Final = "did not accept our certificate, or wants one: see platform.client_cert_file"

# OpenSSL's numbers of certificate errors (X509_V_ERR_…).
_VALIDITY_PERIOD_ERRORS: Final = frozenset({9, 10})
_HOST_NAME_MISMATCH: Final = frozenset({62, 64})
# OpenSSL's reasons for a response in plain HTTP.
_NOT_TLS_REASONS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"})


class Destination(Protocol):
    """Host and port on which the platform or a proxy listens."""

    @property
    def host(self) -> str:
        """The host name or address."""
        ...

    @property
    def port(self) -> int:
        """The TCP port."""
        ...


def connect_error(
    error: OSError, destination: Destination, timeout: float, proxy: Destination | None = None
) -> GatewayError:
    """Return the error for a failed attempt to connect within `timeout` seconds; nothing was sent.

    `proxy` is the proxy through which the connection was attempted, if any.
    """
    where = f"{destination.host} port {destination.port}"
    if isinstance(error, ssl.SSLError):
        return GatewayError(errors.UPSTREAM_TLS, _tls_error_detail(error, destination.host, where))
    # After a timeout the caller has waited long enough, so that there is no retry.
    repeatable = not isinstance(error, TimeoutError)
    return GatewayError(
        errors.UPSTREAM_UNREACHABLE,
        _connect_error_detail(error, destination, timeout, proxy),
        retry_after=RETRY_AFTER,
        is_retryable=repeatable,
    )


def _connect_error_detail(
    error: OSError, destination: Destination, timeout: float, proxy: Destination | None
) -> str:
    where = f"{destination.host} port {destination.port}"
    if proxy is None:
        return _tcp_error_detail(error, destination.host, where, timeout, "platform.fhir_base_url")
    proxy_text = f"the proxy {proxy.host} port {proxy.port}"
    if isinstance(error, ProxyTunnelError):
        return f"{proxy_text} gave no tunnel to {where}: {error.reason}"
    detail = _tcp_error_detail(error, proxy.host, proxy_text, timeout, "platform.proxy_url")
    return f"{detail}; {where} is behind it"


def _tcp_error_detail(error: OSError, host: str, where: str, timeout: float, key: str) -> str:
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


def _tls_error_detail(error: ssl.SSLError, host: str, where: str) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in _VALIDITY_PERIOD_ERRORS:
            return f"the certificate of {where} is not valid at this time; check the clock first"
        if error.verify_code in _HOST_NAME_MISMATCH:
            return f"the certificate of {where} belongs to another name than {host}"
        return f"the certificate of {where} is not trusted; its CA goes into platform.ca_file"
    if is_certificate_alert(error):
        return f"{where} {NOT_ACCEPTED}"
    if error.reason in _NOT_TLS_REASONS:
        return f"{where} does not speak TLS"
    reason = (error.reason or "unknown reason").replace("_", " ").lower()
    return f"no secure connection to {where}: TLS failed ({reason})"
