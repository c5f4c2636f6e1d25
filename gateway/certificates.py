"""TLS towards the callers: the listener's certificate and the CAs of client certificates."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway.config import Settings
from gateway.wiring import StartError


def listen_tls(settings: Settings) -> ssl.SSLContext | None:
    """TLS towards the callers, None without. Raises `StartError` for what cannot be used."""
    tls = settings.listen.tls
    if tls.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _require_readable("listen.tls.cert_file", tls.cert_file)
    _require_readable("listen.tls.key_file", tls.key_file)
    try:
        # Without a password OpenSSL would ask for it on the terminal.
        context.load_cert_chain(tls.cert_file, tls.key_file, password=lambda: b"")
    except (OSError, ssl.SSLError) as error:
        raise StartError(
            f"listen.tls.cert_file: {tls.cert_file} with key {tls.key_file}: {_pem_trouble(error)}"
        ) from None
    if tls.client_ca_file is not None:
        _load_client_cas(context, tls.client_ca_file)
        # A caller that is known by other means need not show a certificate.
        by_other_means = any(not caller.client_cert_names for caller in settings.callers)
        context.verify_mode = ssl.CERT_OPTIONAL if by_other_means else ssl.CERT_REQUIRED
    return context


def _load_client_cas(context: ssl.SSLContext, path: Path) -> None:
    _require_readable("listen.tls.client_ca_file", path)
    try:
        context.load_verify_locations(path)
    except (OSError, ssl.SSLError):
        raise StartError(
            f"listen.tls.client_ca_file: {path}: holds no certificates (PEM)"
        ) from None


def _require_readable(key: str, path: Path | None) -> None:
    if path is None:
        return
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise StartError(f"{key}: {path}: {(error.strerror or 'cannot be read').lower()}") from None


def _pem_trouble(error: OSError) -> str:
    """What is wrong with a certificate and its key, in plain words."""
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return "the key does not belong to the certificate"
    if reason in ("BAD_DECRYPT", "BAD_PASSWORD_READ"):
        return "the key is encrypted; store it without a passphrase, readable for the gateway only"
    return "not a PEM certificate chain and its private key"
