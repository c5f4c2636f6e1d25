"""Templates of the pages: jinja2 with autoescape, loaded when a page is first requested.

A value is escaped unless a template says otherwise, so that no forgotten call becomes an injection.
Each part of the gateway has its templates in its folder `templates`; their names do not contain it.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.i18n import Message, to_message

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

_FOLDERS: Final = tuple(
    Path(__file__).parent / part / "templates" for part in ("admin", "login", "pipeline")
)


def render(name: str, **values: Any) -> str:
    """Return the rendered template; the value `language` is the language of its texts."""
    return environment().get_template(name).render(**values)


def file_text(folder: str, name: str) -> str:
    """Return the text of a file of the package: `file_text("admin/static", "operators.css")`."""
    return (Path(__file__).parent / folder / name).read_text(encoding="utf-8")


def hash_source(text: str) -> str:
    """Return the source expression that allows a style or script in a Content-Security-Policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


@cache
def environment() -> Environment:
    """Return the environment of all templates.

    jinja2 is imported here, because it takes 3 MB of memory, which a gateway whose pages are never
    requested saves.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    jinja = Environment(
        loader=FileSystemLoader(_FOLDERS),
        autoescape=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    jinja.globals |= {"_": pass_context(_text), "pgettext": pass_context(_text_within)}
    return jinja


def _text(context: Context, text: str, /, **values: Any) -> Any:
    """Return a text in the template's language; values are escaped unless they are markup."""
    from markupsafe import escape

    translation = escape(to_message(text).in_language(context["language"]))
    return translation.format(**values) if values else translation


def _text_within(context: Context, meaning: str, english: str, /) -> Any:
    """Return a text whose English text has other meanings in other contexts."""
    return _text(context, Message.within(meaning, english))
