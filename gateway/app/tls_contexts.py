"""TLS to callers, platform and SSO: certificates, keys and trusted CAs."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from gateway.config.section import RIGHT_FILE
from gateway.errors import StartError
from gateway.i18n import Message, setting_problem, system_error
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    from gateway.config.settings import Settings

_log = get_logger(__name__)

CHECK_PATH: Final = Message("check the path and who may read it")
_ENCRYPTED: Final = Message(
    "the key is encrypted; store it without a passphrase, readable for the gateway only"
)


def listen_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context of the caller listener, None without TLS.

    Raises `StartError` where a certificate, key or CA cannot be used.
    """
    tls = settings.listen.tls
    if tls.cert_file is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_identity(context, "listen.tls.cert_file", tls.cert_file, tls.key_file)
    if tls.client_ca_file is not None:
        try:
            context.load_verify_locations(tls.client_ca_file)
        except OSError as error:
            raise _ca_error("listen.tls.client_ca_file", tls.client_ca_file, error) from None
        # A caller that is identified by other means need not present a certificate.
        by_other_means = any(not caller.client_cert_names for caller in settings.callers)
        context.verify_mode = ssl.CERT_OPTIONAL if by_other_means else ssl.CERT_REQUIRED
    return context


def platform_tls(settings: Settings) -> ssl.SSLContext | None:
    """Return the TLS context for the platform, with the client certificate if one is set.

    None where the platform's URL is not https. Raises `StartError`.
    """
    platform = settings.platform
    context = client_tls(platform.fhir_base_url, platform.ca_file, "platform.ca_file")
    if context is not None and platform.client_cert_file is not None:
        files = platform.client_cert_file, platform.client_key_file
        _load_identity(context, "platform.client_cert_file", *files)
        # Apache httpd requests a certificate for some paths only behind the handshake (TLS 1.3).
        context.post_handshake_auth = True
    return context


def sso_tls(
    settings: Settings, platform_context: ssl.SSLContext | None = None
) -> ssl.SSLContext | None:
    """Return the TLS context for the SSO, None without TLS. Raises `StartError`.

    It is `platform_context` if the SSO may have that one: reading the CAs of a system that has them
    in one file takes 30 ms and 0.8 MiB.
    """
    sso, platform = settings.sso, settings.platform
    is_alike = sso.ca_file == platform.ca_file and platform.client_cert_file is None
    if platform_context is not None and is_alike and sso.token_url.startswith("https:"):
        return platform_context
    return client_tls(sso.token_url, sso.ca_file, "sso.ca_file")


def syslog_tls(settings: Settings) -> ssl.SSLContext:
    """Return the TLS context for the audit's syslog server (RFC 5425). Raises `StartError`."""
    audit = settings.audit
    context = _verifying_context(audit.syslog_ca_file, "audit.syslog_ca_file")
    if audit.syslog_client_cert_file is not None:
        files = audit.syslog_client_cert_file, audit.syslog_client_key_file
        _load_identity(context, "audit.syslog_client_cert_file", *files)
    return context


def client_tls(url: str, ca_file: Path | None, key: str) -> ssl.SSLContext | None:
    """Return a verifying context for an https URL, None for another scheme. Raises `StartError`.

    The trust roots are those of `ca_file`, or the system's where it is None.
    """
    if urlsplit(url).scheme != "https":
        return None
    context = _verifying_context(ca_file, key)
    context.set_alpn_protocols(["http/1.1"])
    return context


def certificate_expiries(settings: Settings) -> dict[str, float]:
    """Return the expiry of each certificate of the settings, in Unix seconds, by its purpose.

    An unreadable file is left out; the code that uses it reports the error.
    """
    found = {}
    for name, path in _certificate_files(settings).items():
        if path is None:
            continue
        try:
            found[name] = expiry_time(path, is_ca=name.endswith("-ca"))
        except (OSError, ValueError):
            _log.warning("%s: the expiry of the certificate of %s cannot be read", path, name)
    return found


def require_usable(key: str, path: Path, private_key: Path | None) -> None:
    """Raise `StartError` where a CA, or a certificate with its private key, cannot be used."""
    if key.endswith("ca_file"):
        _verifying_context(path, key)
    elif private_key is not None:
        _load_identity(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), key, path, private_key)


def _certificate_files(settings: Settings) -> dict[str, Path | None]:
    return {
        "listener": settings.listen.tls.cert_file,
        "caller-ca": settings.listen.tls.client_ca_file,
        "platform-ca": settings.platform.ca_file,
        "platform-client": settings.platform.client_cert_file,
        "sso-ca": settings.sso.ca_file,
        "syslog-ca": settings.audit.syslog_ca_file,
        "audit-fhir-ca": settings.audit.fhir_ca_file,
        "syslog-client": settings.audit.syslog_client_cert_file,
    }


def expiry_time(path: Path, *, is_ca: bool) -> float:
    """Return when a PEM file's certificate expires, in Unix seconds. Raises OSError or ValueError.

    Of a chain, the first certificate counts; of several CAs, the one that expires last, because the
    others may be there for a change-over.
    """
    # Imported here: the import takes time, and most gateways have no certificate.
    from cryptography.x509 import load_pem_x509_certificates

    certificates = load_pem_x509_certificates(path.read_bytes())
    ends = [certificate.not_valid_after_utc.timestamp() for certificate in certificates]
    return max(ends) if is_ca else ends[0]


def _verifying_context(ca_file: Path | None, key: str) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise _ca_error(key, ca_file, error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _load_identity(
    context: ssl.SSLContext, key: str, cert_file: Path, key_file: Path | None
) -> None:
    """Load a certificate and its key. `key` is the setting that names `cert_file`."""
    encrypted = False

    def password() -> bytes:
        # Without this callback OpenSSL would ask for the passphrase on the terminal.
        nonlocal encrypted
        encrypted = True
        return b""

    try:
        context.load_cert_chain(cert_file, key_file, password=password)
    except OSError as error:
        trouble = _ENCRYPTED if encrypted else _pem_problem(error)
        why = Message(
            "{cert_file} with key {key_file}: {trouble}",
            cert_file=cert_file,
            key_file=key_file,
            trouble=trouble,
        )
        raise StartError(setting_problem(key, why, None if encrypted else RIGHT_FILE)) from None


def _ca_error(key: str, path: Path | None, error: OSError) -> StartError:
    why, hint = Message("contains no certificates"), Message("Set a PEM file with CA certificates")
    if not isinstance(error, ssl.SSLError):
        why, hint = system_error(error, Message("cannot be read")), CHECK_PATH
    return StartError(setting_problem(key, Message("{path}: {why}", path=path, why=why), hint))


def _pem_problem(error: OSError) -> Message:
    """Return what is wrong with a certificate and its key, as a text for the operator."""
    if not isinstance(error, ssl.SSLError):
        return system_error(error, Message("cannot be read"))
    reason = getattr(error, "reason", None) or ""
    if reason == "KEY_VALUES_MISMATCH":
        return Message("the key does not belong to the certificate")
    return Message("not a PEM certificate chain and its private key")
