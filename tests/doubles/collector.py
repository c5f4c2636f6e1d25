"""A collector that receives spans by OTLP/HTTP and records them, decoded and as octets.

    async with Collector() as collector:
        ... tracing={"otlp_endpoint": collector.url} ...
        spans = await collector.wait_until(lambda spans: len(spans) >= 2)

The extra `otel` must be installed: it has the definitions of the messages.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """A span as it was received; ids in hexadecimal, times in nanoseconds since 1970."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    began: int
    ended: int
    failed: bool
    attributes: dict[str, Any]


@dataclass
class Collector:
    """The server; an async context manager that listens on a free port."""

    tls: ssl.SSLContext | None = None
    status: int = 200
    spans: list[Span] = field(default_factory=list)
    requests: list[dict[str, str]] = field(default_factory=list)
    resources: list[dict[str, Any]] = field(default_factory=list)
    raw: bytes = b""

    async def __aenter__(self) -> Self:
        self._changed = asyncio.Condition()
        application = web.Application(client_max_size=2**26)
        application.router.add_post("/v1/traces", self._receive)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        """Return the endpoint as the settings hold it."""
        scheme, host = ("http", "127.0.0.1") if self.tls is None else ("https", "localhost")
        return f"{scheme}://{host}:{self.port}"

    async def wait_until(self, enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait until `enough` is true of the spans, and return them all."""
        async with self._changed:
            await self._changed.wait_for(lambda: enough(self.spans))
        return self.spans

    async def wait_for_requests(self, times: int) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.requests) >= times)

    async def _receive(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp has decoded the gzip coding.
        async with self._changed:
            self.requests.append({name.lower(): value for name, value in request.headers.items()})
            if self.status == 200:
                self._record(body)
            self._changed.notify_all()
        response = ExportTraceServiceResponse().SerializeToString()
        return web.Response(
            status=self.status, body=response, content_type="application/x-protobuf"
        )

    def _record(self, body: bytes) -> None:
        self.raw += body
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(group.resource.attributes))
            for scope in group.scope_spans:
                self.spans += [_span(span) for span in scope.spans]


def _span(span: Any) -> Span:
    kinds = {2: "server", 3: "client"}
    return Span(
        name=span.name,
        kind=kinds[span.kind],
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        began=span.start_time_unix_nano,
        ended=span.end_time_unix_nano,
        failed=span.status.code == 2,
        attributes=_values(span.attributes),
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}
