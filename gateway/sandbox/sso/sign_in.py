"""The sign-in page: one field, no password, since all data are synthetic.

A request with an unknown client or redirect URI gets an error page and no redirect; all other
errors are sent to the client by a redirect (RFC 6749 section 4.1.2.1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import Final
from urllib.parse import urlencode

from aiohttp import web

from gateway.sandbox.example_data import page_text
from gateway.sandbox.sso.clients import Clients, may_redirect_to
from gateway.sandbox.sso.grants import Grants, PendingSignIn

_CHALLENGE: Final = re.compile(r"[A-Za-z0-9\-_]{43}")
_DEFAULT_USER: Final = "demo.doctor"
_USER_LENGTH: Final = 64
_HEADERS: Final = {
    "Cache-Control": "no-store",
    # No form-action: browsers apply it also to the redirect after the form.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}
_DOCUMENT: Final = Template(page_text("sign_in.html"))
_FORM: Final = Template(page_text("sign_in_form.html"))
_ERROR: Final = Template(page_text("sign_in_error.html"))

FormFields = Mapping[str, str]


class _PageError(Exception):
    """An error shown to the user but not sent to the client."""


class _RedirectError(Exception):
    """An error sent to the client as the `error` of RFC 6749 section 4.1.2.1."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.error = error
        self.description = description


@dataclass(frozen=True, slots=True)
class SignInPage:
    """The authorization endpoint."""

    clients: Clients
    grants: Grants

    async def show(self, request: web.Request) -> web.Response:
        """Return the page, or a redirect with an error."""
        return self._answer(list(request.query.items()), _form_page)

    async def submit(self, request: web.Request) -> web.Response:
        """Process the user's decision. The form is posted to the URL of the page itself."""
        form = [(name, str(value)) for name, value in (await request.post()).items()]
        return self._answer([*request.query.items(), *form], self._login_decision)

    def _answer(
        self, pairs: Sequence[tuple[str, str]], proceed: Callable[[FormFields], web.Response]
    ) -> web.Response:
        given = {name: value for name, value in pairs if value}
        try:
            self._require_safe(pairs, given)
        except _PageError as error:
            return _page(
                "This sign-in cannot go on", _ERROR.substitute(why=escape(str(error))), status=400
            )
        try:
            self._require_valid(given)
            return proceed(given)
        except _RedirectError as error:
            return _redirect(given, {"error": error.error, "error_description": error.description})

    def _require_safe(self, pairs: Sequence[tuple[str, str]], given: FormFields) -> None:
        if len({name for name, _ in pairs}) != len(pairs):
            raise _PageError("A parameter appears twice.")
        if not self.clients.known(given.get("client_id", "")):
            raise _PageError("The client_id is missing or not registered.")
        if not may_redirect_to(given.get("redirect_uri", "")):
            raise _PageError("The redirect_uri is missing or not registered.")

    def _require_valid(self, given: FormFields) -> None:
        if "response_type" not in given:
            raise _RedirectError("invalid_request", "response_type is missing")
        if given["response_type"] != "code":
            raise _RedirectError("unsupported_response_type", "only code")
        if "scope" in given:
            raise _RedirectError("invalid_scope", "a scope that is not configured")
        challenge = given.get("code_challenge")
        if challenge is None:
            if self.clients.is_public(given["client_id"]):
                raise _RedirectError("invalid_request", "a public client must use PKCE")
        elif given.get("code_challenge_method") != "S256" or not _CHALLENGE.fullmatch(challenge):
            raise _RedirectError("invalid_request", "code_challenge must be of the method S256")

    def _login_decision(self, given: FormFields) -> web.Response:
        if given.get("decision") != "allow":
            raise _RedirectError("access_denied", "the user refused")
        code = self.grants.new_code(
            PendingSignIn(
                client_id=given["client_id"],
                subject=_subject(given.get("username", "")),
                redirect_uri=given["redirect_uri"],
                challenge=given.get("code_challenge"),
            )
        )
        return _redirect(given, {"code": code})


def _subject(username: str) -> str:
    """Return the user name without characters that are unsafe in a token or a log line."""
    plain = re.sub(r"[^\w.@-]+", "_", username.strip())
    return plain[:_USER_LENGTH] or _DEFAULT_USER


def _redirect(given: FormFields, answer: FormFields) -> web.Response:
    state = {"state": given["state"]} if "state" in given else {}
    uri = given["redirect_uri"]
    location = f"{uri}{'&' if '?' in uri else '?'}{urlencode({**answer, **state})}"
    return web.Response(status=303, headers={**_HEADERS, "Location": location})


def _form_page(given: FormFields) -> web.Response:
    content = _FORM.substitute(client=escape(given["client_id"]), user=_DEFAULT_USER)
    return _page("Sign in to the sandbox", content)


def _page(title: str, content: str, status: int = 200) -> web.Response:
    text = _DOCUMENT.substitute(title=escape(title), content=content)
    return web.Response(text=text, status=status, content_type="text/html", headers=_HEADERS)
