"""The outbox pages on the operators' listener: reading needs no sign-in, deciding does.

No GET changes anything. A change needs the page's own form, sent by a signed-in operator.
`OutboxAdminApi` reads and changes the entries; its errors become pages that only have the reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import hdrs
from aiohttp.web_app import Application
from aiohttp.web_request import Request
from aiohttp.web_response import Response
from yarl import URL

from gateway.admin import outbox_page
from gateway.admin.operators import CHALLENGE, Operators, is_cross_site
from gateway.admin.outbox_page import HEADERS, OutboxPageError, PageContext, render_refusal

if TYPE_CHECKING:
    from gateway.admin.outbox_admin_api import OutboxAdminApi

# Seconds within which a form has to be complete, and its maximum size in bytes.
_FORM_TIMEOUT: Final = 10.0
_MAX_FORM_BYTES: Final = 16 * 1024
_MAX_REASON_LENGTH: Final = 300
# Of an entry, in `after`: databases store it in 64 bits.
_LAST_NUMBER: Final = 2**62


class OutboxPages:
    """The pages `/outbox` and below.

    `outbox` is None where there is none. `language` chooses the language for a request. `reveal`:
    operators may see entries in full.
    """

    def __init__(
        self,
        outbox: OutboxAdminApi | None,
        operators: Operators,
        language: Callable[[Request], str],
        *,
        reveal: bool,
    ) -> None:
        self._outbox_if_enabled = outbox
        self._operators = operators
        self._language = language
        self._reveal = reveal

    def add_to(self, application: Application) -> None:
        """Add the routes of all pages to the application."""
        router = application.router
        router.add_get("/outbox", self._page(self._list))
        router.add_get("/outbox/{id:[0-9a-f]{32}}", self._page(self._entry))
        for name, handler in (
            ("retry", self._retry),
            ("drop", self._drop),
            ("reveal", self._reveal_entry),
        ):
            router.add_post(f"/outbox/{name}", self._page(handler))

    def _page(
        self, handler: Callable[[Request, PageContext], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def respond(request: Request) -> Response:
            view = PageContext(
                self._language(request),
                root_path="" if request.path.endswith("/outbox") else "../",
                has_operators=self._operators.has_operators,
                reveal=self._reveal,
            )
            try:
                self._sign_in(request, view)
                return await handler(request, view)
            except OutboxPageError as refusal:
                page = render_refusal(view, refusal.text_key)
                return _html(page, view, refusal.status, refusal.headers)

        return respond

    def _sign_in(self, request: Request, view: PageContext) -> None:
        view.operator = self._operators.authenticate(request)
        if view.operator is not None:
            view.token = self._operators.form_token(view.operator)
        elif view.has_operators and "sign-in" in request.query:
            raise OutboxPageError(HTTPStatus.UNAUTHORIZED, "sign-in", CHALLENGE)

    async def _list(self, request: Request, view: PageContext) -> Response:
        query = _without_nul(request.query)
        state, after = query.get("state"), query.get("after", "0")
        filters: dict[str, Any] = {
            "state": state if state in outbox_page.STATES else None,
            "cause": query.get("cause"),
            "caller": query.get("caller"),
            "after": min(int(after), _LAST_NUMBER) if after.isdecimal() else 0,
        }
        facts = await self._outbox.entries(**filters)
        return _html(outbox_page.render_list_page(view, facts, filters, query), view)

    async def _entry(self, request: Request, view: PageContext) -> Response:
        entry = await self._outbox.entry(request.match_info["id"])
        return _html(outbox_page.render_entry_page(view, entry), view)

    async def _retry(self, request: Request, view: PageContext) -> Response:
        form, operator = await self._form(request, view)
        if "cause" in form:
            count = await self._outbox.retry_failed(form["cause"], operator)
        else:
            await self._outbox.retry(_id(form), operator)
            count = 1
        return _redirect_to_list(view, said="retried", count=str(count))

    async def _drop(self, request: Request, view: PageContext) -> Response:
        form, operator = await self._form(request, view)
        reason = " ".join(form.get("reason", "").split())[:_MAX_REASON_LENGTH]
        if not reason:
            raise OutboxPageError(HTTPStatus.BAD_REQUEST, "no-reason")
        await self._outbox.drop(_id(form), operator, reason)
        return _redirect_to_list(view, said="dropped")

    async def _reveal_entry(self, request: Request, view: PageContext) -> Response:
        form, operator = await self._form(request, view)
        if not self._reveal:
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "hidden")
        entry = await self._outbox.reveal(_id(form), operator)
        return _html(outbox_page.render_entry_page(view, entry), view)

    @property
    def _outbox(self) -> OutboxAdminApi:
        if self._outbox_if_enabled is None:
            raise OutboxPageError(HTTPStatus.NOT_FOUND, "disabled")
        return self._outbox_if_enabled

    async def _form(self, request: Request, view: PageContext) -> tuple[Mapping[str, str], str]:
        """Return the fields of a form and the signed-in operator that sent it.

        Raises `OutboxPageError`.
        """
        if not view.has_operators:
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "read-only")
        if is_cross_site(request):
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "foreign")
        if view.operator is None:
            raise OutboxPageError(HTTPStatus.UNAUTHORIZED, "sign-in", CHALLENGE)
        form = await _parse_form(request)
        if not self._operators.is_valid_form_token(form.get("token", ""), view.operator):
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "old-form")
        return form, view.operator


async def _parse_form(request: Request) -> Mapping[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise OutboxPageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "form")
    if (request.content_length or 0) > _MAX_FORM_BYTES:
        raise OutboxPageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "form")
    try:
        async with asyncio.timeout(_FORM_TIMEOUT):
            return _without_nul(await request.post())
    except TimeoutError:
        raise OutboxPageError(HTTPStatus.REQUEST_TIMEOUT, "form") from None
    except (ValueError, LookupError):
        raise OutboxPageError(HTTPStatus.BAD_REQUEST, "form") from None


def _without_nul(fields: Mapping[str, object]) -> dict[str, str]:
    """Return the fields with U+FFFD in the place of NUL, which PostgreSQL permits in no text."""
    return {name: str(value).replace("\0", "\ufffd") for name, value in fields.items()}


def _id(form: Mapping[str, str]) -> str:
    if "id" not in form:
        raise OutboxPageError(HTTPStatus.BAD_REQUEST, "form")
    return form["id"]


def _redirect_to_list(view: PageContext, **parameters: str) -> Response:
    """Return a redirect to the list, so that reloading the page does not repeat the action."""
    location = URL("../outbox").with_query({"lang": view.language, **parameters})
    headers = {**HEADERS, hdrs.LOCATION: str(location)}
    return Response(status=HTTPStatus.SEE_OTHER, headers=headers)


def _html(
    page: str,
    view: PageContext,
    status: HTTPStatus = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
) -> Response:
    fields = {**HEADERS, hdrs.CONTENT_LANGUAGE: view.language, **(headers or {})}
    return Response(status=status, text=page, content_type="text/html", headers=fields)
