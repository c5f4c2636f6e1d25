"""Style and script of the status page, and the header fields that allow only these two.

The other pages for operators share `STYLE`, `TIMES` and `headers`.
"""

from __future__ import annotations

import base64
import hashlib
from typing import Final

from gateway.templates import file_text

_FOLDER: Final = "admin/static"
STYLE: Final = file_text(_FOLDER, "operators.css")
# The part of scripts that shows times in the browser's time zone.
TIMES: Final = file_text(_FOLDER, "times.js")
SCRIPT: Final = file_text(_FOLDER, "status.js").replace("  // times.js\n", TIMES)


def _source(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def headers(style: str, script: str, *, forms: str = "'none'") -> dict[str, str]:
    """Return the header fields of a page that allow only this style and script.

    `forms` is the source list of the directive `form-action`.
    """
    return {
        "Content-Security-Policy": (
            f"default-src 'none'; style-src {_source(style)}; script-src {_source(script)}; "
            f"connect-src 'self'; img-src data:; base-uri 'none'; form-action {forms}; "
            "frame-ancestors 'none'"
        ),
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept-Language",
    }


HEADERS: Final = headers(STYLE, SCRIPT)
