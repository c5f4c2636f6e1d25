"""A limited caller may poll and cancel at the status URL that it was given; no other caller may."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.doubles.gateway import RunningGateway
from tests.doubles.platform import Platform, http
from tests.doubles.wire import Response, fetch, get
from tests.pipeline.conftest import StartGateway

# By those that servers in use hand out: SMART's bulk server, Medplum, HAPI, Firely, Azure, Blaze.
PATHS: Final = [
    *("/bulkstatus/7", "/job/7/status", "/$export-poll-status?_jobId=7", "/$exportstatus?_jobid=7"),
    *("/_operations/export/7", "/__async-status/7?part=a%2Fb"),
]
LIMITS: Final[list[dict[str, Any]]] = [
    {"operations": ["$export"]},
    {"interactions": ["operation"], "operations": ["$export"]},
    {"interactions": ["operation"]},
    {"interactions": ["operation"], "resources": ["Patient"], "operations": ["$export"]},
]


def callers(**allow: Any) -> list[dict[str, Any]]:
    """Return two callers with the same limits and different keys."""
    return [{"name": name, "api_key": f"key-of-{name}", "allow": allow} for name in ("his", "lab")]


async def status_of(
    gateway: RunningGateway, target: str, method: str = "GET", by: str = "his"
) -> Response:
    request = get(f"/fhir{target}", f"X-Api-Key: key-of-{by}", method=method)
    return await fetch(gateway.address, request)


async def start_export(gateway: RunningGateway, platform: Platform, place: str) -> Response:
    """Start an export for which the platform returns this status URL."""
    platform.script(http(202, b"", ("Content-Location", place)))
    reply = await status_of(gateway, "/Patient/$export")
    assert reply.status == 202
    return reply


def is_forbidden(reply: Response) -> bool:
    return (reply.status, reply.reason) == (403, "caller-forbidden")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("allow", LIMITS, ids=str)
async def test_the_caller_that_started_an_export_polls_and_cancels_it(
    start_gateway: StartGateway, platform: Platform, allow: dict[str, Any], path: str
) -> None:
    """At any path below the platform's base."""
    async with start_gateway(callers=callers(**allow)) as gateway:
        began = await start_export(gateway, platform, platform.url + path)
        assert began.header("content-location") == f"http://gateway/fhir{path}"
        for method in ("GET", "HEAD", "DELETE"):
            platform.script(http(202, b""))
            assert (await status_of(gateway, path, method)).status == 202, method
    assert [request.target for request in platform.requests[1:]] == [f"/r5{path}"] * 3


async def test_relative_status_url_counts(start_gateway: StartGateway, platform: Platform) -> None:
    """Some servers send Content-Location as a path."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        await start_export(gateway, platform, f"{platform.base_path}/bulkstatus/7")
        platform.script(http(202, b""))
        assert (await status_of(gateway, "/bulkstatus/7")).status == 202


@pytest.mark.parametrize(
    ("target", "method", "by"),
    [
        ("/bulkstatus/7", "GET", "lab"),
        ("/bulkstatus/7", "POST", "his"),
        ("/bulkstatus/7", "PUT", "his"),
        ("/bulkstatus/8", "GET", "his"),
        ("/bulkstatus/7?all=1", "GET", "his"),
        ("/bulkstatus/7/", "GET", "his"),
        ("/bulkstatus", "DELETE", "his"),
    ],
)
async def test_a_status_url_permits_nothing_else(
    start_gateway: StartGateway, platform: Platform, target: str, method: str, by: str
) -> None:
    """Other callers, methods and URLs are limited as before."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        await start_export(gateway, platform, f"{platform.url}/bulkstatus/7")
        assert is_forbidden(await status_of(gateway, target, method, by))
    assert len(platform.requests) == 1


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/Patient/1", "GET"),
        ("/Patient/1", "DELETE"),
        ("/Patient", "DELETE"),
        ("/Patient?name=x", "GET"),
        ("/Patient/1/_history/1", "GET"),
        ("/", "DELETE"),
        ("/_history", "GET"),
    ],
)
async def test_a_defined_path_needs_its_own_permission(
    start_gateway: StartGateway, platform: Platform, path: str, method: str
) -> None:
    """Also when the platform returned it as a status URL."""
    allow = {"interactions": ["operation"], "operations": ["$export"]}
    async with start_gateway(callers=callers(**allow)) as gateway:
        await start_export(gateway, platform, platform.url + path)
        assert is_forbidden(await status_of(gateway, path, method))


async def test_only_a_202_has_a_status_url(start_gateway: StartGateway, platform: Platform) -> None:
    """In other responses Content-Location names the content."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        place = ("Content-Location", f"{platform.url}/bulkstatus/7")
        platform.script(http(200, b"{}", ("Content-Type", "application/json"), place))
        assert (await status_of(gateway, "/Patient/$export")).status == 200
        assert is_forbidden(await status_of(gateway, "/bulkstatus/7"))


async def test_x_provenance_is_checked_at_a_status_url(
    start_gateway: StartGateway, platform: Platform
) -> None:
    async with start_gateway(
        callers=callers(operations=["$export"], interactions=["operation"])
    ) as gateway:
        await start_export(gateway, platform, f"{platform.url}/bulkstatus/7")
        fields = ("X-Api-Key: key-of-his", 'X-Provenance: {"resourceType":"Provenance"}')
        request = get("/fhir/bulkstatus/7", *fields, method="DELETE")
        assert is_forbidden(await fetch(gateway.address, request))


async def test_the_latest_status_urls_of_a_caller_are_kept(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Memory is bounded."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        for number in range(300):
            await start_export(gateway, platform, f"{platform.url}/bulkstatus/{number}")
        platform.script(http(202, b""))
        assert (await status_of(gateway, "/bulkstatus/299")).status == 202
        assert is_forbidden(await status_of(gateway, "/bulkstatus/0"))


async def test_a_reload_keeps_status_urls(start_gateway: StartGateway, platform: Platform) -> None:
    """An export takes hours."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        await start_export(gateway, platform, f"{platform.url}/bulkstatus/7")
        await gateway.gateway.reload(gateway.settings)
        platform.script(http(202, b""))
        assert (await status_of(gateway, "/bulkstatus/7")).status == 202
