"""Local responses that are not OperationOutcomes: pages, redirects and JSON documents for pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.exchange import Exchange

# On every response of the sign-in: it is not stored, framed or sniffed, and no referrer reaches the
# next page.
_SAFE_HEADERS: Final = (
    ("Cache-Control", "no-store"),
    ("Cross-Origin-Resource-Policy", "same-site"),
    ("Referrer-Policy", "no-referrer"),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
)
_DEFAULT_POLICY: Final = (
    "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass(frozen=True, slots=True)
class LocalResponse:
    """A status, the fields in addition to `_SAFE_HEADERS`, and a body."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_security_policy: str = _DEFAULT_POLICY

    @property
    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """All fields except those of the connection and of the body's length."""
        return (
            *_SAFE_HEADERS,
            ("Content-Security-Policy", self.content_security_policy),
            *self.headers,
        )


@dataclass(frozen=True, slots=True)
class LocalResponder:
    """Answers a request without the platform.

    `extra_field_lines` are added to every response, errors included. `expired_session_responder`
    responds in place of caller-unauthenticated.
    """

    respond: Callable[[Exchange], Awaitable[LocalResponse]]
    extra_field_lines: bytes = b""
    expired_session_responder: LocalResponder | None = None


def json_response(value: Any, *headers: tuple[str, str], status: int = 200) -> LocalResponse:
    """Return a JSON document for a page or a program."""
    return LocalResponse(
        status, (("Content-Type", "application/json"), *headers), orjson.dumps(value)
    )


def redirect_response(location: str, *headers: tuple[str, str]) -> LocalResponse:
    """Return a redirect (302); browsers follow it with GET whatever the method was."""
    return LocalResponse(302, (("Location", location), *headers))


def html_response(
    page: str, status: int, style_source: str, *headers: tuple[str, str]
) -> LocalResponse:
    """Return a page without scripts and with one style, which the policy allows by its source."""
    return LocalResponse(
        status,
        (("Content-Type", "text/html; charset=utf-8"), *headers),
        page.encode(),
        f"{_DEFAULT_POLICY}; style-src {style_source}",
    )
