"""The outbox pages on the operators' listener: reading needs no sign-in, deciding does.

No GET changes anything. A change needs the page's own form, sent by a signed-in operator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import hdrs
from aiohttp.web_app import Application
from aiohttp.web_request import Request
from aiohttp.web_response import Response
from yarl import URL

from gateway.admin.outbox import entry_page, list_page
from gateway.admin.outbox.frame import HEADERS, PageContext, refusal_page
from gateway.admin.outbox.operators import (
    CHALLENGE,
    OperatorAuthError,
    OperatorRateLimitError,
    Operators,
    is_cross_site,
)

if TYPE_CHECKING:
    # A gateway without an outbox does not load its modules.
    from gateway.admin.outbox.desk import AskOutbox, OutboxFacts

Language = Callable[[str | None, str | None], str]
OutboxPageHandler = Callable[[Request, PageContext], Awaitable[Response]]

# Seconds within which a form has to be complete, and its maximum size in bytes.
_FORM_TIME: Final = 10.0
_FORM_BYTES: Final = 16 * 1024
_MAX_REASON_LENGTH: Final = 300
_LAST_NUMBER: Final = 2**62


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


class OutboxPages:
    """The pages `/outbox` and below.

    `ask` sends a question to an `OutboxAdminApi`, None where there is no outbox. `language` chooses
    the language by the query parameter `lang` and `Accept-Language`. `reveal`: operators may see
    entries in full.
    """

    def __init__(
        self, ask: AskOutbox | None, operators: Operators, language: Language, *, reveal: bool
    ) -> None:
        self._query_outbox = ask
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

    def _page(self, handler: OutboxPageHandler) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            view = self._view(request)
            try:
                self._sign_in(request, view)
                return await handler(request, view)
            except OutboxPageError as refusal:
                page = refusal_page(view, refusal.text_key)
                return _html(page, view, refusal.status, refusal.headers)

        return answer

    def _view(self, request: Request) -> PageContext:
        accepted = ",".join(request.headers.getall(hdrs.ACCEPT_LANGUAGE, []))
        language = self._language(request.query.get("lang"), accepted or None)
        above = "" if request.path.endswith("/outbox") else "../"
        return PageContext(
            language, above, has_operators=self._operators.has_operators, reveal=self._reveal
        )

    def _sign_in(self, request: Request, view: PageContext) -> None:
        try:
            view.operator = self._operators.authenticate(request)
        except OperatorRateLimitError as error:
            wait: dict[str, str] = {hdrs.RETRY_AFTER: str(int(error.retry_after) + 1)}
            raise OutboxPageError(HTTPStatus.TOO_MANY_REQUESTS, "too-many", wait) from None
        except OperatorAuthError:
            raise OutboxPageError(HTTPStatus.UNAUTHORIZED, "sign-in", CHALLENGE) from None
        if view.operator is not None:
            view.token = self._operators.form_token(view.operator)
        elif view.has_operators and "sign-in" in request.query:
            raise OutboxPageError(HTTPStatus.UNAUTHORIZED, "sign-in", CHALLENGE)

    async def _list(self, request: Request, view: PageContext) -> Response:
        query = request.query
        after = query.get("after", "0")
        question = {
            "ask": "list",
            "states": [state for state in list_page.STATES if state == query.get("state")],
            "cause": query.get("cause"),
            "caller": query.get("caller"),
            "after": min(int(after), _LAST_NUMBER) if after.isdecimal() else 0,
        }
        facts = await self._query(question)
        return _html(list_page.render_list_page(view, facts, question, query), view)

    async def _entry(self, request: Request, view: PageContext) -> Response:
        facts = await self._query({"ask": "entry", "id": request.match_info["id"]})
        return _html(entry_page.render_entry_page(view, facts["entry"]), view)

    async def _retry(self, request: Request, view: PageContext) -> Response:
        form = await self._form(request, view)
        operator = view.operator
        if "cause" in form:
            question = {"ask": "retry-failed", "cause": form["cause"], "operator": operator}
            moved = (await self._query(question))["moved"]
        else:
            await self._apply_action({"ask": "retry", "id": _id(form), "operator": operator})
            moved = 1
        return _redirect_to_list(view, said="retried", count=str(moved))

    async def _drop(self, request: Request, view: PageContext) -> Response:
        form = await self._form(request, view)
        reason = " ".join(form.get("reason", "").split())[:_MAX_REASON_LENGTH]
        if not reason:
            raise OutboxPageError(HTTPStatus.BAD_REQUEST, "no-reason")
        question = {"ask": "drop", "id": _id(form), "operator": view.operator, "reason": reason}
        await self._apply_action(question)
        return _redirect_to_list(view, said="dropped")

    async def _reveal_entry(self, request: Request, view: PageContext) -> Response:
        form = await self._form(request, view)
        if not self._reveal:
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "hidden")
        question = {"ask": "reveal", "id": _id(form), "operator": view.operator}
        facts = await self._query(question)
        return _html(entry_page.render_entry_page(view, facts["entry"]), view)

    async def _query(self, question: OutboxFacts) -> OutboxFacts:
        """Return the answer to a question. Raises `OutboxPageError` if there is none."""
        if self._query_outbox is None:
            raise OutboxPageError(HTTPStatus.NOT_FOUND, "disabled")
        facts = await self._query_outbox(question)
        if facts is None:
            raise OutboxPageError(HTTPStatus.NOT_FOUND, "missing")
        for why in ("away", "unrecorded"):
            if facts.get(why):
                raise OutboxPageError(HTTPStatus.SERVICE_UNAVAILABLE, why)
        return facts

    async def _apply_action(self, question: OutboxFacts) -> None:
        if not (await self._query(question))["done"]:
            raise OutboxPageError(HTTPStatus.CONFLICT, "not-possible")

    async def _form(self, request: Request, view: PageContext) -> Mapping[str, str]:
        """Return the fields of a form sent by a signed-in operator. Raises `OutboxPageError`."""
        if not view.has_operators:
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "read-only")
        if is_cross_site(request):
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "foreign")
        if view.operator is None:
            raise OutboxPageError(HTTPStatus.UNAUTHORIZED, "sign-in", CHALLENGE)
        form = await _parse_form(request)
        if not self._operators.is_valid_form_token(form.get("token", ""), view.operator):
            raise OutboxPageError(HTTPStatus.FORBIDDEN, "old-form")
        return form


async def _parse_form(request: Request) -> Mapping[str, str]:
    if request.content_type != "application/x-www-form-urlencoded":
        raise OutboxPageError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "form")
    if (request.content_length or 0) > _FORM_BYTES:
        raise OutboxPageError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "form")
    try:
        async with asyncio.timeout(_FORM_TIME):
            return {name: str(value) for name, value in (await request.post()).items()}
    except TimeoutError:
        raise OutboxPageError(HTTPStatus.REQUEST_TIMEOUT, "form") from None
    except (ValueError, LookupError):
        raise OutboxPageError(HTTPStatus.BAD_REQUEST, "form") from None


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
