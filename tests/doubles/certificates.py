"""TLS contexts with certificates of a test's own CA."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import trustme


def server_context(
    authority: trustme.CA, *names: str, clients: trustme.CA | None = None, **options: Any
) -> ssl.SSLContext:
    """Return a server's context with a certificate for the names, which are `localhost` by default.

    It requires certificates of `clients` if that is given. `options` are those of `issue_cert`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names or ("localhost",), **options).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(
    authority: trustme.CA | None = None, *, issuer: trustme.CA | None = None, name: str = ""
) -> ssl.SSLContext:
    """Return a client's context that trusts the CA, with a certificate of `issuer` for the name."""
    context = ssl.create_default_context()
    if authority is not None:
        authority.configure_trust(context)
    if issuer is not None:
        issuer.issue_cert(name).configure_cert(context)
    return context


class Pki:
    """A certificate authority and the listener's files."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.renew()

    def renew(self, authority: trustme.CA | None = None) -> None:
        """Write another certificate, first its key, as some tools do."""
        leaf = (authority or self.authority).issue_cert("localhost")
        self.key.write_bytes(leaf.private_key_pem.bytes())
        self.cert.write_bytes(b"".join(pem.bytes() for pem in leaf.cert_chain_pems))

    @property
    def cert(self) -> Path:
        return self.directory / "cert.pem"

    @property
    def key(self) -> Path:
        return self.directory / "key.pem"

    def settings(self, **more: Any) -> dict[str, Any]:
        files = {"cert_file": str(self.cert), "key_file": str(self.key), **more}
        return {"address": "127.0.0.1:0", "tls": files}

    def client(self, authority: trustme.CA | None = None) -> ssl.SSLContext:
        return client_context(authority or self.authority)
