"""The operators' listener over a real socket."""

from __future__ import annotations

import gzip
import logging

import aiohttp
import pytest
from aiohttp.test_utils import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pytest_aiohttp import AiohttpClient

from gateway.admin.admin_server import build_application
from gateway.admin.operators import Operators
from gateway.health.health import Component
from tests.doubles.gateway_states import serve_state


class Collaborators:
    """Metrics and health as a test sets them."""

    def __init__(self) -> None:
        self.ready = True
        self.broken = False
        self.accepted: list[str | None] = []
        self.page = "# TYPE x_total counter\n" + "".join(
            f'x_total{{n="{n}"}} 1\n' for n in range(200)
        )

    def render(self, accept: str | None) -> tuple[str, bytes]:
        if self.broken:
            raise RuntimeError("a bug")
        self.accepted.append(accept)
        return "text/plain; version=1.0.0; charset=utf-8", self.page.encode()

    def components(self) -> list[Component]:
        return [Component("circuit", "ok" if self.ready else "failed", "circuit-open")]


@pytest.fixture
def collaborators() -> Collaborators:
    return Collaborators()


@pytest.fixture
async def client(aiohttp_client: AiohttpClient, collaborators: Collaborators) -> TestClient:
    """A client of a running listener, which leaves compressed bodies as they are."""
    application = build_application(
        metrics=collaborators,
        health=collaborators,
        status=collaborators,
        operators=Operators(()),
    )
    options = {"auto_decompress": False, "skip_auto_headers": {"Accept-Encoding"}}
    return await aiohttp_client(application, **options)


async def test_livez_is_200(client, collaborators):
    collaborators.ready = False
    answer = await client.get("/livez")
    assert answer.status == 200
    assert await answer.json() == {"alive": True}


async def test_readyz_follows_the_components(client, collaborators):
    answer = await client.get("/readyz")
    assert answer.status == 200
    body = await answer.json()
    assert (body["ready"], body["failing"], body["checks"]["circuit"]) == (True, [], "ok")
    collaborators.ready = False
    answer = await client.get("/readyz")
    assert answer.status == 503
    body = await answer.json()
    assert (body["ready"], body["failing"]) == (False, ["circuit"])
    assert body["checks"]["circuit"] == "failed"


async def test_metrics_have_their_content_type(client, collaborators):
    answer = await client.get("/metrics", headers={"Accept": "text/plain;version=1.0.0"})
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/plain; version=1.0.0; charset=utf-8"
    text = await answer.text()
    assert text == collaborators.page
    assert len(list(text_string_to_metric_families(text))) == 1
    assert collaborators.accepted == ["text/plain;version=1.0.0"]


@pytest.mark.parametrize(
    ("coding", "compressed"),
    [
        *[(each, True) for each in ("gzip", "*", "deflate, GZIP;q=0.5")],
        *[(each, False) for each in (None, "identity", "gzip;q=0", "gzip; q=0.0", "*;q=0")],
    ],
)
async def test_metrics_are_compressed_if_accepted(client, collaborators, coding, compressed):
    headers = {} if coding is None else {"Accept-Encoding": coding}
    answer = await client.get("/metrics", headers=headers)
    assert answer.headers.get("Content-Encoding") == ("gzip" if compressed else None)
    assert answer.headers["Vary"] == "Accept, Accept-Encoding"
    body = await answer.read()
    assert (gzip.decompress(body) if compressed else body).decode() == collaborators.page


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_head_is_get_without_a_body(client, path):
    answer = await client.head(path)
    assert answer.status == 200
    assert int(answer.headers["Content-Length"]) > 0
    assert await answer.read() == b""


async def test_the_root_lists_every_page():
    async with serve_state("quiet") as url, aiohttp.ClientSession(url) as session:
        async with session.get("/") as answer:
            links = (await answer.json())["links"]
        assert set(links) == {
            *("/livez", "/readyz", "/metrics", "/.well-known/jwks.json"),
            *("/status", "/status.json", "/status/events"),
        }
        for path in links:
            async with session.get(path) as answer:
                assert answer.status == 200


FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("accept", [FIREFOX, "text/html, application/xhtml+xml, */*", "TEXT/HTML"])
async def test_a_browser_is_redirected_from_the_root_to_the_status_page(accept, method):
    """Who would rather have HTML is sent to `status`, also where a proxy adds a path in front."""
    async with serve_state("quiet") as url, aiohttp.ClientSession() as session:
        headers = {"Accept": accept}
        async with session.request(method, url, headers=headers, allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "status")
            assert answer.headers["Vary"] == "Accept"
            assert answer.headers["Cache-Control"] == "no-store"
        async with session.request(method, url, headers=headers) as answer:
            assert (answer.status, answer.url.path) == (200, "/status")
            assert answer.content_type == "text/html"


@pytest.mark.parametrize(
    "accept",
    [
        *["", "*/*", "application/json", "application/json, text/html", "text/plain"],
        *["text/html;q=0.5, application/json", "text/html;q=0.5, */*;q=0.8"],
        *["text/html;q=0", "text/html;q=nonsense"],
    ],
)
async def test_a_program_gets_the_index_of_the_root(accept):
    async with (
        serve_state("quiet") as url,
        aiohttp.ClientSession() as session,
        session.get(url, headers={"Accept": accept}, allow_redirects=False) as answer,
    ):
        assert (answer.status, answer.headers["Vary"]) == (200, "Accept")
        assert "/status" in (await answer.json())["links"]


@pytest.mark.parametrize("path", ["/status/", "/fhir/Patient", "/metrics/"])
async def test_other_paths_are_404_in_json(client, path):
    answer = await client.get(path)
    assert answer.status == 404
    assert answer.content_type == "application/json"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_405_with_allow(client, method):
    answer = await client.request(method, "/metrics", data=b"x")
    assert answer.status == 405
    assert set(answer.headers["Allow"].split(",")) == {"GET", "HEAD"}
    assert await answer.json() == {"error": "Method Not Allowed"}


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics", "/nowhere"])
async def test_responses_have_security_fields(client, path):
    answer = await client.get(path)
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Server"] == "dhp-gateway"


async def test_an_exception_is_a_500_that_discloses_nothing(client, collaborators, caplog):
    collaborators.broken = True
    with caplog.at_level(logging.ERROR):
        answer = await client.get("/metrics")
    assert answer.status == 500
    assert await answer.json() == {"error": "Internal Server Error"}
    assert answer.headers["Server"] == "dhp-gateway"
    assert [record.name for record in caplog.records] == ["gateway.admin"]
