"""The page that explains a failed sign-in to the user, in en, ru and uz.

It shows no value of the request or of the SSO, except the path of the next sign-in and the request
id, both escaped.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from gateway.i18n import Message, in_all_languages
from gateway.pipeline.own_replies import LocalResponse, html_response
from gateway.templates import file_text, render

_STYLE: Final = file_text("login/templates", "sign_in_failed.css")
_STYLE_HASH: Final = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

# The status of the page, by the failure.
STATUS: Final = {
    "expired": 400,
    "foreign": 400,
    "return": 400,
    "denied": 403,
    "rejected": 401,
    "refused": 502,
    "invalid": 502,
    "unavailable": 503,
}
MESSAGES: Final = {
    "title": Message("You are not signed in"),
    "again": Message("Try again"),
    "number": Message("Number for support"),
    "expired": Message(
        "This sign-in took too long, was used already, or was begun in another browser. "
        "Please begin again."
    ),
    "foreign": Message(
        "This page was opened with an address that answers no sign-in begun here, so nobody "
        "was signed in. Please begin again."
    ),
    "return": Message(
        "The address that should be opened after the sign-in is not allowed. Please open the "
        "program's first page again."
    ),
    "denied": Message(
        "The sign-in was cancelled, or you have no access. If you should have it, ask your "
        "administrator."
    ),
    "rejected": Message(
        "You signed in, but the platform does not accept it. Please try again in a minute; "
        "if it happens again, tell your administrator."
    ),
    "refused": Message(
        "The sign-in service refused this request. Please try again; if it happens again, "
        "tell your administrator."
    ),
    "invalid": Message(
        "The sign-in service gave an answer that cannot be trusted, so nobody was signed in. "
        "Please tell your administrator if it happens again."
    ),
    "unavailable": Message(
        "The sign-in service cannot be reached now. Nothing was lost; please try again in a minute."
    ),
}
TEXTS: Final = in_all_languages(MESSAGES)


def failure_page(
    what: str, language: str, again_path: str, request_id: str, *headers: tuple[str, str]
) -> LocalResponse:
    """Return the page that explains why the sign-in failed.

    `what` is a key of `STATUS`, `again_path` is the path that starts another sign-in. `headers` are
    added to the response.
    """
    page = render(
        "sign_in_failed.html",
        language=language,
        style=_STYLE,
        words=TEXTS.get(language, TEXTS["en"]),
        what=what,
        again_path=again_path,
        request_id=request_id,
    )
    language_field = ("Content-Language", language)
    return html_response(page, STATUS[what], _STYLE_HASH, language_field, *headers)
