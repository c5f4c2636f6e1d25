"""The pages' templates: jinja2 with autoescape, made when a page is first asked for.

Templates stand in the folder `templates` of the part that shows them, and are named without it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.i18n import Message

if TYPE_CHECKING:
    from jinja2 import Environment
    from jinja2.runtime import Context

_FOLDERS: Final = tuple(Path(__file__).parent / part / "templates" for part in ("admin", "login"))


def render(name: str, **values: Any) -> str:
    """A page or a part of one; `language` among the values is that of its texts."""
    return environment().get_template(name).render(**values)


def file_text(folder: str, name: str) -> str:
    """A file of the package, such as a style: `file_text("admin/static", "operators.css")`."""
    return (Path(__file__).parent / folder / name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """That of all templates. jinja2 takes 3 MB that a gateway nobody looks at can do without."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    made = Environment(
        loader=FileSystemLoader(_FOLDERS),
        autoescape=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals["_"] = pass_context(_text)
    return made


def _text(context: Context, english: str, /, **values: Any) -> Any:
    """A text of a template in the page's language; values are escaped unless they are markup."""
    from markupsafe import escape

    text = escape(Message(english).in_language(context["language"]))
    return text.format(**values) if values else text
