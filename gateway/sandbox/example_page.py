"""An example of a hospital's web page that signs in through the gateway and lists patients.

It is served by the platform's listener, not by the gateway: a separate origin, as in production. It
demonstrates that a page needs neither a token nor a library, only the options `credentials` and
`headers` of `fetch`.
"""

from __future__ import annotations

import base64
import hashlib
import html
from string import Template
from typing import Final

from aiohttp import web

from gateway.sandbox.data import page_text

PATH: Final = "/example"

_STYLE: Final = page_text("example_page.css")
_SCRIPT: Final = Template(page_text("example_page.js"))
# The value of `$audit` in the page if there is an audit file.
_AUDIT: Final = Template(page_text("example_audit.html"))
_DOCUMENT: Final = Template(page_text("example_page.html"))


class ExamplePage:
    """The page for one gateway; `gateway_url` is its origin, without a path.

    `audit` is the audit file that has a record of each request, if there is one.
    """

    def __init__(self, gateway_url: str, audit: str | None = None) -> None:
        script = _SCRIPT.substitute(gateway=gateway_url)
        told = "" if audit is None else _AUDIT.substitute(file=html.escape(audit))
        self._page = _DOCUMENT.substitute(style=_STYLE, script=script, audit=told)
        self._headers = {
            "Cache-Control": "no-store",
            "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
            f"frame-ancestors 'none'; connect-src {gateway_url}; "
            f"style-src '{_hash(_STYLE)}'; script-src '{_hash(script)}'",
            "Referrer-Policy": "no-referrer",
        }

    async def show(self, request: web.Request) -> web.Response:
        """Return the page."""
        return web.Response(text=self._page, content_type="text/html", headers=self._headers)


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
