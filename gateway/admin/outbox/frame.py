"""What all pages of the outbox have: head, languages, who is signed in, style and script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(slots=True)
class PageContext:
    """Who looks, and how. `root_path` leads from the page's address to the listener's root.

    `has_operators`: the settings name operators; `token` goes into the forms of the one who is
    signed in; `reveal`: entries may be seen in full.
    """

    language: str
    root_path: str
    has_operators: bool
    reveal: bool
    operator: str | None = None
    token: str = ""

    @property
    def words(self) -> Words:
        """The texts in the reader's language."""
        return OUTBOX_WORDS[self.language]

    def link(self, to: str, **query: str) -> str:
        """The address of a page."""
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
    """A whole page; `here` and `query` are its address, `answer` says which icon it has."""
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
    """A page that says why there is nothing else."""
    return render_page(view, "outbox_refused.html", answer="degraded", word=word)
