"""The frame of all outbox pages: head, languages, signed-in operator, style and script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlencode

from gateway.admin.outbox.texts import OUTBOX_WORDS
from gateway.admin.status.assets import STYLE as COMMON_STYLE
from gateway.admin.status.assets import TIMES, headers
from gateway.admin.status.icons import tab_icon
from gateway.admin.status.markup import Words
from gateway.admin.status.page import templates
from gateway.i18n import LANGUAGES
from gateway.pipeline.callers import ANONYMOUS
from gateway.templates import file_text

STYLE: Final = COMMON_STYLE + file_text("admin/static", "outbox.css")
SCRIPT: Final = f'\n"use strict";\n(() => {{\n{TIMES}  localise(document.body);\n}})();\n'
# The Origin of the page's own forms would be "null" without a referrer (Fetch standard).
HEADERS: Final = {
    **headers(STYLE, SCRIPT, forms="'self'"),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class OutboxPageError(Exception):
    """The response is a page that only has the reason.

    `text_key` is the key of the reason's text, without the prefix `refused:`.
    """

    def __init__(
        self, status: HTTPStatus, word: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(word)
        self.status = status
        self.text_key = word
        self.headers = headers or {}


@dataclass(slots=True)
class PageContext:
    """The language, the operator and the rights for which a page is rendered.

    `root_path`: the relative path from the page to the listener's root. `has_operators`: the
    settings name operators. `reveal`: operators may see entries in full. `operator`: the signed-in
    operator, None if there is none. `token`: the form token of that operator, "" if there is none.
    """

    language: str
    root_path: str
    has_operators: bool
    reveal: bool
    operator: str | None = None
    token: str = ""

    @property
    def words(self) -> Words:
        """The texts in the page's language."""
        return OUTBOX_WORDS[self.language]

    def link(self, to: str, **query: str) -> str:
        """Return the address of a page with query and language. Templates escape it."""
        asked = urlencode({**query, "lang": query.get("lang", self.language)})
        return f"{self.root_path}{to}?{asked}"


def render_page(
    view: PageContext,
    template: str,
    here: str = "outbox",
    query: Mapping[str, str] | None = None,
    *,
    answer: str,
    **values: Any,
) -> str:
    """Return a complete page made from a template.

    `here` is the page's path below `root_path`, `query` its query; the links to other languages
    have both. `answer` selects the icon of the tab.
    """
    words = view.words
    unasked = ("said", "count", "sign-in")
    asked = {key: value for key, value in (query or {}).items() if key not in unasked}
    addresses = {
        each: f"{view.root_path}{here}?{urlencode({**asked, 'lang': each})}" for each in LANGUAGES
    }
    return (
        templates()
        .get_template(template)
        .render(
            view=view,
            words=words,
            language=view.language,
            addresses=addresses,
            title=f"{words['outbox']} · {words['title']}",
            icon=tab_icon(answer),
            answer=answer,
            anonymous=ANONYMOUS.name,
            style=STYLE,
            script=SCRIPT,
            **values,
        )
    )


def refusal_page(view: PageContext, word: str) -> str:
    """Return a page that only has the text `refused:` of `word`."""
    return render_page(view, "outbox_refused.html", answer="degraded", word=word)
