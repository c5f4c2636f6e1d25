"""The operators' listener as an aiohttp application: health, metrics, public keys and two pages.

It never shares a port with the callers' listener. It reads no request body and shows no patient
data, except for actions of signed-in operators on the outbox page.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from aiohttp import hdrs
from aiohttp.web_app import Application
from aiohttp.web_exceptions import HTTPException
from aiohttp.web_middlewares import middleware
from aiohttp.web_request import Request
from aiohttp.web_response import Response, StreamResponse

from gateway.admin import status_page
from gateway.admin.admin_listener import SAFE_HEADERS, json_response
from gateway.admin.operators import Operators
from gateway.admin.outbox_routes import OutboxPages
from gateway.admin.status_events import StatusEvents
from gateway.admin.status_facts import StatusReporter
from gateway.field_values import prefers_html
from gateway.health.health import Health, readiness
from gateway.http import content_coding
from gateway.telemetry.logs import get_logger
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.admin.outbox_admin_api import OutboxAdminApi

Handler = Callable[[Request], Awaitable[StreamResponse]]

_log = get_logger("gateway.admin")

# Bytes. Compressing a smaller scrape saves nothing.
_GZIP_FROM = 1024


def build_application(
    *,
    metrics: Metrics,
    health: Health,
    status: StatusReporter,
    operators: Operators,
    public_keys: Callable[[], Iterable[Mapping[str, Any]]] = tuple,
    outbox: OutboxAdminApi | None = None,
    reveal: bool = False,
) -> Application:
    """Return the application for `admin.address`.

    `public_keys` returns the JWKs with which the SSO authenticates the gateway; it may read files,
    at each request, so that a new key can be registered before it is used.
    `operators` may decide about the entries of `outbox`, None where there is none, and with
    `reveal` see an entry in full.
    """

    links = _LINKS if outbox is None else _LINKS | _OUTBOX_LINKS

    async def livez(request: Request) -> Response:
        return json_response(HTTPStatus.OK, {"alive": True})

    async def readyz(request: Request) -> Response:
        ready, body = readiness(health.components())
        return json_response(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, body)

    async def jwks(request: Request) -> Response:
        keys = await asyncio.to_thread(public_keys)
        return json_response(HTTPStatus.OK, {"keys": list(keys)})

    application = Application(middlewares=[_answers_in_json])
    application.on_response_prepare.append(_add_safe_headers)
    application.router.add_get("/", partial(_index, links))
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", partial(_scrape, metrics))
    application.router.add_get("/.well-known/jwks.json", jwks)
    _add_status(application, status, health)
    language = partial(_language, status)
    OutboxPages(outbox, operators, language, reveal=reveal).add_to(application)
    return application


async def _scrape(metrics: Metrics, request: Request) -> Response:
    accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
    content_type, body = metrics.render(accept or None)
    accepted = ", ".join(request.headers.getall(hdrs.ACCEPT_ENCODING, []))
    headers = {hdrs.CONTENT_TYPE: content_type, hdrs.VARY: "Accept, Accept-Encoding"}
    if len(body) >= _GZIP_FROM and content_coding.accepts_coding(accepted.encode(), "gzip"):
        headers[hdrs.CONTENT_ENCODING] = "gzip"
        body = gzip.compress(body, compresslevel=1)
    return Response(body=body, headers=headers)


def _language(status: StatusReporter, request: Request) -> str:
    accepted = ",".join(request.headers.getall(hdrs.ACCEPT_LANGUAGE, []))
    return status.language(request.query.get("lang"), accepted or None)


def _add_status(application: Application, status: StatusReporter, health: Health) -> None:
    async def for_people(request: Request) -> Response:
        facts = status.facts(_language(status, request))
        text = status_page.render_status_page(facts, health.components(), request.query)
        return Response(text=text, content_type="text/html", headers=status_page.HEADERS)

    async def for_programs(request: Request) -> Response:
        facts = status.facts(_language(status, request))
        return json_response(HTTPStatus.OK, facts, {hdrs.VARY: hdrs.ACCEPT_LANGUAGE})

    async def for_open_pages(request: Request) -> StreamResponse:
        def shown(facts: Mapping[str, Any]) -> Mapping[str, Any]:
            return status_page.page_facts(facts, health.components(), request.query)

        return await events.serve(request, _language(status, request), shown)

    events = StatusEvents(status, status_page.page_update)
    application.on_shutdown.append(events.close)
    application.router.add_get("/status", for_people)
    application.router.add_get("/status.json", for_programs)
    # The stream has no end, so that the handler cannot respond to HEAD.
    application.router.add_get("/status/events", for_open_pages, allow_head=False)


_LINKS: Final = {
    "/livez": "whether the process answers at all",
    "/readyz": "whether requests can succeed, and if not, why",
    "/metrics": "for Prometheus",
    "/.well-known/jwks.json": "the public keys by which the SSO is to know the gateway",
    "/status": "for people: can care go on, and if not, what to do",
    "/status.json": "the same facts for programs",
    "/status/events": "newer facts for open pages, as server-sent events",
}
_OUTBOX_LINKS: Final = {"/outbox": "for people: what waits, failed and is unclear"}


async def _index(links: Mapping[str, str], request: Request) -> Response:
    """Return the response at `/`: a browser is redirected to the status page, others get links."""
    accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
    if prefers_html(accept):
        # A relative reference, because a proxy may serve the listener below a path.
        headers = {hdrs.LOCATION: "status", hdrs.VARY: hdrs.ACCEPT}
        return Response(status=HTTPStatus.SEE_OTHER, headers=headers)
    return json_response(HTTPStatus.OK, {"links": links}, {hdrs.VARY: hdrs.ACCEPT})


@middleware
async def _answers_in_json(request: Request, handler: Handler) -> StreamResponse:
    try:
        return await handler(request)
    except HTTPException as error:
        allow = error.headers.get(hdrs.ALLOW)
        headers: dict[str, str] = {hdrs.ALLOW: allow} if allow else {}
        return json_response(error.status, {"error": HTTPStatus(error.status).phrase}, headers)
    except Exception:
        # aiohttp's own response would bypass `_add_safe_headers`.
        _log.exception("the operators' listener failed", path=request.path)
        return json_response(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "Internal Server Error"})


async def _add_safe_headers(request: Request, response: StreamResponse) -> None:
    response.headers.update(SAFE_HEADERS)
