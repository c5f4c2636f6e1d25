"""A host, and a host with its port, as written in URLs and fields (RFC 3986 section 3.2)."""

from __future__ import annotations


def url_host(host: str) -> str:
    """Return the host; an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


def authority(host: str, port: int) -> str:
    """Return host and port, joined by a colon; an IPv6 address is in brackets."""
    return f"{url_host(host)}:{port}"
