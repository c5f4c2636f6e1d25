"""The operators' listener as a plain aiohttp application: health, metrics, keys and two pages.

It never shares a port with the callers. It reads no request body, and shows no patient data, but
for what signed-in operators do on the outbox's page.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson
from aiohttp import hdrs
from aiohttp.web_app import Application
from aiohttp.web_exceptions import HTTPException
from aiohttp.web_middlewares import middleware
from aiohttp.web_request import Request
from aiohttp.web_response import Response, StreamResponse

from gateway.admin.outbox.operators import Operators
from gateway.admin.outbox.routes import OutboxPages
from gateway.admin.status import assets
from gateway.admin.status import page as status_page
from gateway.admin.status.events import StatusEvents
from gateway.fhir.negotiation import prefers_html
from gateway.http import content_coding
from gateway.telemetry.logs import get_logger

if TYPE_CHECKING:
    # Where the listener is there need be no outbox.
    from gateway.admin.outbox.desk import AskOutbox

Handler = Callable[[Request], Awaitable[StreamResponse]]

_log = get_logger("gateway.admin")

_JSON = "application/json"
# Below this a compressed scrape saves nothing.
_GZIP_FROM = 1024


class MetricsSource(Protocol):
    """The metrics, rendered in the format that `Accept` asks for."""

    def render(self, accept: str | None) -> tuple[str, bytes]:
        """Content type and body."""
        ...


class ReadinessSource(Protocol):
    """The facts behind `/readyz`."""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Whether the gateway is ready, and the body that says why not."""
        ...


class StatusSource(Protocol):
    """The facts behind `/status`."""

    def language(self, asked: str | None, accept_language: str | None) -> str:
        """The language to answer in."""
        ...

    async def facts(self, language: str) -> dict[str, Any]:
        """The facts, with sentences in this language."""
        ...


async def _refresh_nothing() -> None:
    """The facts are in this process."""


def _empty_key_set() -> Iterable[Mapping[str, Any]]:
    return ()


@dataclass(frozen=True, slots=True)
class OutboxPageConfig:
    """Whom the outbox's page asks, None where there is no outbox; and who may decide there.

    `reveal`: an entry may be seen in full.
    """

    query: AskOutbox | None
    operators: Operators
    reveal: bool


def build_application(
    *,
    metrics: MetricsSource,
    readiness: ReadinessSource,
    refresh: Callable[[], Awaitable[None]] = _refresh_nothing,
    public_keys: Callable[[], Iterable[Mapping[str, Any]]] = _empty_key_set,
    status: StatusSource | None = None,
    outbox: OutboxPageConfig | None = None,
) -> Application:
    """The application for `admin.address`.

    `refresh` is awaited before metrics or readiness are asked, to fetch what they are made of.
    `public_keys` gives the JWKs that the SSO is to know us by; it may read files.
    Without `status` there are no pages, without `outbox` there is no `/outbox`.
    """

    async def livez(request: Request) -> Response:
        return _json(HTTPStatus.OK, {"alive": True})

    async def readyz(request: Request) -> Response:
        await refresh()
        ready, body = readiness.report()
        return _json(HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE, body)

    async def scrape(request: Request) -> Response:
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
        await refresh()
        content_type, body = metrics.render(accept or None)
        accepted = ", ".join(request.headers.getall(hdrs.ACCEPT_ENCODING, []))
        headers = {hdrs.CONTENT_TYPE: content_type, hdrs.VARY: "Accept, Accept-Encoding"}
        if len(body) >= _GZIP_FROM and content_coding.accepts_coding(accepted.encode(), "gzip"):
            headers[hdrs.CONTENT_ENCODING] = "gzip"
            body = gzip.compress(body, compresslevel=1)
        return Response(body=body, headers=headers)

    async def jwks(request: Request) -> Response:
        keys = await asyncio.to_thread(public_keys)
        return _json(HTTPStatus.OK, {"keys": list(keys)})

    application = Application(middlewares=[_answers_in_json])
    application.on_response_prepare.append(_add_safe_headers)
    application.router.add_get("/", _index(_links(status, outbox), page=status is not None))
    application.router.add_get("/livez", livez)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", scrape)
    application.router.add_get("/.well-known/jwks.json", jwks)
    if status is not None:
        _add_status(application, status)
        _add_outbox(application, status, outbox)
    return application


def _add_status(application: Application, status: StatusSource) -> None:
    def language(request: Request) -> str:
        accepted = ",".join(request.headers.getall(hdrs.ACCEPT_LANGUAGE, []))
        return status.language(request.query.get("lang"), accepted or None)

    async def for_people(request: Request) -> Response:
        text = status_page.render_status_page(await status.facts(language(request)))
        return Response(text=text, content_type="text/html", headers=assets.HEADERS)

    async def for_programs(request: Request) -> Response:
        facts = await status.facts(language(request))
        return _json(HTTPStatus.OK, facts, {hdrs.VARY: hdrs.ACCEPT_LANGUAGE})

    async def for_open_pages(request: Request) -> StreamResponse:
        return await events.serve(request, language(request))

    events = StatusEvents(status, status_page.page_update)
    application.on_shutdown.append(events.close)
    application.router.add_get("/status", for_people)
    application.router.add_get("/status.json", for_programs)
    # A stream has no end, and so no answer to HEAD.
    application.router.add_get("/status/events", for_open_pages, allow_head=False)


def _add_outbox(
    application: Application, status: StatusSource, outbox: OutboxPageConfig | None
) -> None:
    if outbox is not None:
        pages = OutboxPages(outbox.query, outbox.operators, status.language, reveal=outbox.reveal)
        pages.add_to(application)


_LINKS: Final = {
    "/livez": "whether the process answers at all",
    "/readyz": "whether requests can succeed, and if not, why",
    "/metrics": "for Prometheus",
    "/.well-known/jwks.json": "the public keys by which the SSO is to know the gateway",
}
_STATUS_LINKS: Final = {
    "/status": "for people: can care go on, and if not, what to do",
    "/status.json": "the same facts for programs",
    "/status/events": "newer facts for open pages, as server-sent events",
}


_OUTBOX_LINKS: Final = {"/outbox": "for people: what waits, failed and is unclear"}


def _links(status: StatusSource | None, outbox: OutboxPageConfig | None) -> dict[str, str]:
    """What there is, with a word on each."""
    there = outbox is not None and outbox.query is not None
    pages = _STATUS_LINKS if status is not None else {}
    return {**_LINKS, **pages, **(_OUTBOX_LINKS if there else {})}


def _index(links: Mapping[str, str], *, page: bool) -> Handler:
    """What there is; who comes with a browser is led to the status page, if there is one."""

    async def index(request: Request) -> Response:
        accept = ",".join(request.headers.getall(hdrs.ACCEPT, []))
        if page and prefers_html(accept):
            # Relative: the listener may stand behind a proxy, below a path.
            headers = {hdrs.LOCATION: "status", hdrs.VARY: hdrs.ACCEPT}
            return Response(status=HTTPStatus.SEE_OTHER, headers=headers)
        return _json(HTTPStatus.OK, {"links": links}, {hdrs.VARY: hdrs.ACCEPT})

    return index


@middleware
async def _answers_in_json(request: Request, handler: Handler) -> StreamResponse:
    try:
        return await handler(request)
    except HTTPException as error:
        allow = error.headers.get(hdrs.ALLOW)
        headers: dict[str, str] = {hdrs.ALLOW: allow} if allow else {}
        return _json(error.status, {"error": HTTPStatus(error.status).phrase}, headers)
    except Exception:
        # aiohttp's own answer would bypass `_add_safe_headers`.
        _log.exception("the operators' listener failed", path=request.path)
        return _json(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": "Internal Server Error"})


async def _add_safe_headers(request: Request, response: StreamResponse) -> None:
    response.headers[hdrs.CACHE_CONTROL] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"
    # Otherwise aiohttp tells its own version and Python's.
    response.headers[hdrs.SERVER] = "dhp-gateway"


def _json(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    return Response(
        status=status, body=orjson.dumps(body) + b"\n", content_type=_JSON, headers=headers
    )
