"""Answers of the gateway's own that are no outcomes: pages, redirects and facts for pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.exchange import Exchange

# On every answer of the sign-in: nothing is kept, framed, guessed or told to the next page.
SAFE_HEADERS: Final = (
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
    """A status, the fields beside the safe ones, and a body."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    content_security_policy: str = _DEFAULT_POLICY

    @property
    def all_headers(self) -> tuple[tuple[str, str], ...]:
        """All fields but those of the connection and the body's length."""
        return (
            *SAFE_HEADERS,
            ("Content-Security-Policy", self.content_security_policy),
            *self.headers,
        )


@dataclass(frozen=True, slots=True)
class LocalResponder:
    """A request that the gateway answers itself: how, and the lines on its answer, errors too.

    `expired_session_responder` is what is told in the place of caller-unauthenticated.
    """

    respond: Callable[[Exchange], Awaitable[LocalResponse]]
    extra_field_lines: bytes = b""
    expired_session_responder: LocalResponder | None = None


def json_response(value: Any, *headers: tuple[str, str], status: int = 200) -> LocalResponse:
    """Facts for a page or a program."""
    return LocalResponse(
        status, (("Content-Type", "application/json"), *headers), orjson.dumps(value)
    )


def redirect_response(location: str, *headers: tuple[str, str]) -> LocalResponse:
    """To another address, by GET whatever the method was."""
    return LocalResponse(302, (("Location", location), *headers))


def html_response(
    page: str, status: int, style_hash: str, *headers: tuple[str, str]
) -> LocalResponse:
    """A page with one style, which the policy names by its hash, and no script."""
    return LocalResponse(
        status,
        (("Content-Type", "text/html; charset=utf-8"), *headers),
        page.encode(),
        f"{_DEFAULT_POLICY}; style-src '{style_hash}'",
    )
