"""A host, and a host with its port, as URLs and header fields write them (RFC 3986, 3.2)."""

from __future__ import annotations


def url_host(host: str) -> str:
    """The host; an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def authority(host: str, port: int) -> str:
    """The host and the port."""
    return f"{url_host(host)}:{port}"
