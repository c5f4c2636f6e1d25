"""The pages that Ory Hydra leaves to others: sign-in, consent and sign-out.

    hydra_pages.py SETTINGS

Written from Ory Hydra 2.3. It redirects a browser to them with a challenge; they accept that at its
admin listener, which says where the browser goes on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

_SIGN_IN = """<!doctype html><title>Sign in</title><form method="post">
<input id="username" name="username"><input id="password" name="password" type="password">
<button id="sign-in">Sign in</button></form>"""
_CONSENT = """<!doctype html><title>Consent</title><form method="post">
<button id="agree">Agree</button></form>"""
_SIGN_OUT = """<!doctype html><title>Sign out</title><form method="post">
<button id="sign-out">Sign out</button></form>"""


class _Pages:
    def __init__(self, admin: str, user: str, password: str) -> None:
        self._admin = f"{admin}/admin/oauth2/auth/requests"
        self._user = user
        self._password = password

    async def sign_in(self, request: web.Request) -> web.Response:
        asked = await self._get("login", request)
        form = await request.post()
        is_user = (form.get("username"), form.get("password")) == (self._user, self._password)
        if not asked["skip"] and not is_user:
            return web.Response(text=_SIGN_IN, content_type="text/html")
        return await self._accept("login", request, {"subject": self._user, "remember": True})

    async def consent(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(text=_CONSENT, content_type="text/html")
        asked = await self._get("consent", request)
        granted = {
            "grant_scope": asked["requested_scope"],
            "grant_access_token_audience": asked["requested_access_token_audience"],
        }
        return await self._accept("consent", request, granted)

    async def sign_out(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.Response(text=_SIGN_OUT, content_type="text/html")
        return await self._accept("logout", request, {})

    async def _get(self, what: str, request: web.Request) -> dict[str, Any]:
        challenge = {f"{what}_challenge": request.query[f"{what}_challenge"]}
        async with aiohttp.request("GET", f"{self._admin}/{what}", params=challenge) as answer:
            asked: dict[str, Any] = await answer.json()
            return asked

    async def _accept(
        self, what: str, request: web.Request, granted: dict[str, Any]
    ) -> web.Response:
        challenge = {f"{what}_challenge": request.query[f"{what}_challenge"]}
        url = f"{self._admin}/{what}/accept"
        async with aiohttp.request("PUT", url, params=challenge, json=granted) as answer:
            location = (await answer.json())["redirect_to"]
        return web.Response(status=303, headers={"Location": location})


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    pages = _Pages(settings["admin"], settings["user"], settings["password"])
    application = web.Application()
    for path, page in (
        ("/login", pages.sign_in),
        ("/consent", pages.consent),
        ("/logout", pages.sign_out),
    ):
        application.router.add_route("*", path, page)
    web.run_app(application, host="127.0.0.1", port=settings["port"], print=None)


main()
