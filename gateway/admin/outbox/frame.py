"""The frame of all outbox pages: head, languages, signed-in operator, style and script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Final
from urllib.parse import urlencode

from gateway.admin.outbox.texts import OUTBOX_WORDS
from gateway.admin.status.assets import STYLE as COMMON_STYLE
from gateway.admin.status.assets import TIMES, headers
from gateway.admin.status.icons import tab_icon
from gateway.admin.status.markup import Html, Words, code_element, language_links, mark_commands
from gateway.i18n import LANGUAGES

STYLE: Final = (
    COMMON_STYLE
    + """
.who{font-size:.95rem}.who .button{margin-right:.5rem}
.tabs{display:flex;flex-wrap:wrap;gap:.25rem .5rem;margin:0 0 .6rem}
.tabs a,.more a,.button{display:inline-block;padding:.3rem .7rem;border:1px solid var(--line);
border-radius:.4rem;text-decoration:none}.tabs a[aria-current]{font-weight:700;
border-color:currentColor}.more{display:flex;gap:.5rem;margin-top:.75rem}
form{margin:.6rem 0 0}button,input{font:inherit;color:inherit;border-radius:.4rem;
border:1px solid var(--soft);padding:.4rem .8rem}button{background:var(--bar);color:var(--card);
border-color:var(--bar);font-weight:600;cursor:pointer}button.grave{background:var(--no-bg);
color:var(--no);border-color:currentColor}input{background:var(--paper);width:100%}
label{display:block;font-weight:600}.decisions{display:grid;gap:1rem;align-items:start;
grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.news{border:2px solid;border-radius:.6rem;padding:.5rem 1rem;font-weight:600;
color:var(--yes);background:var(--yes-bg)}
dl{display:grid;grid-template-columns:minmax(8rem,max-content) 1fr;gap:.3rem 1rem;margin:0}
dt{color:var(--soft);font-weight:600}dd{margin:0}
pre{white-space:pre-wrap;background:var(--paper);border:1px solid var(--line);border-radius:.4rem;
padding:.6rem;margin:.3rem 0 .6rem;max-height:30rem;overflow:auto}
@media(max-width:40rem){.entries thead{position:absolute;width:1px;height:1px;overflow:hidden;
clip-path:inset(50%)}.entries tr{display:block;padding:.5rem 0;border-bottom:1px solid var(--line)}
.entries tr:last-child{border:0}.entries td{display:flex;gap:.75rem;justify-content:space-between;
text-align:right;border:0;padding:.1rem 0}.entries td::before{content:attr(data-name);
color:var(--soft);text-align:left;white-space:nowrap}dl{grid-template-columns:1fr;gap:0}
dd{margin-bottom:.5rem}button{width:100%}.glance h2{font-size:.9rem}}
"""
)
SCRIPT: Final = f'\n"use strict";\n(() => {{{TIMES}  localise(document.body);\n}})();\n'
# With `no-referrer` the Origin of the page's own forms would be "null" (Fetch standard).
HEADERS: Final = {
    **headers(STYLE, SCRIPT, forms="'self'"),
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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
        """Return the address of a page with query and language, escaped for HTML."""
        asked = urlencode({**query, "lang": query.get("lang", self.language)})
        return escape(f"{self.root_path}{to}?{asked}")

    def form(self, action: str, button: str, inside: str = "", **fields: str) -> str:
        """Return a form with one button, "" if no operator is signed in."""
        if self.operator is None:
            return ""
        hidden = "".join(
            f'<input type="hidden" name="{name}" value="{escape(value)}">'
            for name, value in {**fields, "token": self.token}.items()
        )
        return Html(
            f'<form method="post" action="{self.root_path}outbox/{action}?lang={self.language}">'
            f"{hidden}{inside}{button}</form>"
        )


def render_frame(
    view: PageContext, main: str, here: str, query: Mapping[str, str], *, answer: str = "untried"
) -> str:
    """Return the complete page; `here` and `query` are its address, `answer` selects the icon."""
    words = view.words
    title = f"{words['outbox']} · {words['title']}"
    asked = {key: value for key, value in query.items() if key not in ("said", "count", "sign-in")}
    addresses = {
        each: f"{view.root_path}{here}?{urlencode({**asked, 'lang': each})}" for each in LANGUAGES
    }
    return (
        f'<!DOCTYPE html>\n<html lang="{view.language}"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<link rel="icon" href="{tab_icon(answer)}"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body><header><h1>{escape(words['outbox'])}</h1>"
        f"{language_links(view.language, addresses, words)}</header>"
        f"<main>{_signed_in_label(view)}{main}</main>"
        f'<footer><a href="{view.link("status")}">{escape(words["to-status"])}</a></footer>'
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def refusal_page(view: PageContext, word: str) -> str:
    """Return a page that only has the text `refused:` of `word`."""
    words = view.words
    told = (
        f'<section class="card"><p>{mark_commands(words[f"refused:{word}"])}</p>'
        f'<p class="more"><a href="{view.link("outbox")}">{escape(words["back"])}</a></p></section>'
    )
    return render_frame(view, told, "outbox", {}, answer="degraded")


def _signed_in_label(view: PageContext) -> str:
    words = view.words
    if view.operator is not None:
        told = mark_commands(words["signed-in"]).replace("{name}", code_element(view.operator))
    elif view.has_operators:
        link = f'<a class="button" href="{view.link("outbox", **{"sign-in": ""})}">'
        told = f"{link}{escape(words['sign-in'])}</a> {mark_commands(words['sign-in-first'])}"
    else:
        told = mark_commands(words["read-only"])
    return f'<p class="who">{told}</p>'
