"""Local responses that are not FHIR: pages, redirects and JSON documents for pages.

Also decides which local errors are pages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, Literal

import orjson

from gateway.exchange import Exchange
from gateway.fhir.content_negotiation import format_parameter, wants_xml
from gateway.field_values import begins_with_html, is_page_navigation
from gateway.templates import file_text, hash_source, render

if TYPE_CHECKING:
    from gateway.http.server.request_parser import RequestMessage

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
    template: str, status: int, *headers: tuple[str, str], language: str, **values: Any
) -> LocalResponse:
    """Return the page of a template that extends `local_page.html`, which names its `values`.

    It has no scripts, and one style, which the policy allows by its hash.
    """
    style, source = _page_style()
    page = render(template, language=language, style=style, **values)
    return LocalResponse(
        status,
        (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Language", language),
            *headers,
        ),
        page.encode(),
        f"{_DEFAULT_POLICY}; style-src {source}",
    )


@cache
def _page_style() -> tuple[str, str]:
    style = file_text("pipeline/templates", "local_page.css")
    return style, hash_source(style)


OutcomeFormat = Literal["html", "json", "xml"]


def outcome_format(message: RequestMessage, accept: str | None) -> OutcomeFormat:
    """Return the format of a local OperationOutcome: a page for what a browser opens as a page.

    `_format` outranks the fields. A browser would offer XML as a download, which its Accept names
    before anything else that the gateway has.
    """
    query = message.path.partition("?")[2]
    named = format_parameter(query)
    if named is not None:
        return named
    if begins_with_html(accept):
        fields = {name.lower(): value.decode("latin-1") for name, value in message.raw_headers}
        if is_page_navigation(
            accept, fields.get(b"sec-fetch-mode"), fields.get(b"x-requested-with")
        ):
            return "html"
    return "xml" if wants_xml(query, accept) else "json"


def outcome_page(outcome: dict[str, Any], status: int) -> LocalResponse:
    """Return the page that says what an OperationOutcome of the gateway says."""
    issue = outcome["issue"][0]
    return html_response(
        "outcome_page.html",
        status,
        language=outcome["language"],
        reason=issue["details"]["coding"][0]["code"],
        text=issue["details"]["text"],
        diagnostics=issue["diagnostics"],
        request_id=outcome["id"],
    )
