"""A limited caller that was given a status URL may poll and cancel there, and no other caller."""

from __future__ import annotations

from typing import Any, Final

import pytest

from tests.doubles.gateway import Running
from tests.doubles.platform import Platform, http
from tests.doubles.wire import Reply, ask, get
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
    """Two callers with the same limits, told apart by their keys."""
    return [{"name": name, "api_key": f"key-of-{name}", "allow": allow} for name in ("his", "lab")]


async def asked(gateway: Running, target: str, method: str = "GET", by: str = "his") -> Reply:
    """What a caller gets."""
    request = get(f"/fhir{target}", f"X-Api-Key: key-of-{by}", method=method)
    return await ask(gateway.address, request)


async def exported(gateway: Running, platform: Platform, place: str) -> Reply:
    """Starts an export, for which the platform names that place."""
    platform.script(http(202, b"", ("Content-Location", place)))
    reply = await asked(gateway, "/Patient/$export")
    assert reply.status == 202
    return reply


def refused(reply: Reply) -> bool:
    """Whether the caller may not do that."""
    return (reply.status, reply.reason) == (403, "caller-forbidden")


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("allow", LIMITS, ids=str)
async def test_the_caller_that_started_an_export_polls_and_cancels_it(
    start_gateway: StartGateway, platform: Platform, allow: dict[str, Any], path: str
) -> None:
    """Under whatever path the platform tells of it, as far as that is below its base."""
    async with start_gateway(callers=callers(**allow)) as gateway:
        began = await exported(gateway, platform, platform.url + path)
        assert began.header("content-location") == f"http://gateway/fhir{path}"
        for method in ("GET", "HEAD", "DELETE"):
            platform.script(http(202, b""))
            assert (await asked(gateway, path, method)).status == 202, method
    assert [seen.target for seen in platform.seen[1:]] == [f"/r5{path}"] * 3


async def test_a_place_without_a_host_counts(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Some servers send Content-Location as a path."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        await exported(gateway, platform, f"{platform.base_path}/bulkstatus/7")
        platform.script(http(202, b""))
        assert (await asked(gateway, "/bulkstatus/7")).status == 202


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
async def test_nothing_else_is_opened(
    start_gateway: StartGateway, platform: Platform, target: str, method: str, by: str
) -> None:
    """Another caller, another method, another URL: all that stays as limited as it was."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        await exported(gateway, platform, f"{platform.url}/bulkstatus/7")
        assert refused(await asked(gateway, target, method, by))
    assert len(platform.seen) == 1


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
async def test_a_place_that_is_no_status_url_opens_nothing(
    start_gateway: StartGateway, platform: Platform, path: str, method: str
) -> None:
    """A path that FHIR defines needs its own permission, even when the platform returned it."""
    allow = {"interactions": ["operation"], "operations": ["$export"]}
    async with start_gateway(callers=callers(**allow)) as gateway:
        await exported(gateway, platform, platform.url + path)
        assert refused(await asked(gateway, path, method))


async def test_only_an_accepted_request_has_a_status_url(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """In any other answer Content-Location names what the answer is."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        place = ("Content-Location", f"{platform.url}/bulkstatus/7")
        platform.script(http(200, b"{}", ("Content-Type", "application/json"), place))
        assert (await asked(gateway, "/Patient/$export")).status == 200
        assert refused(await asked(gateway, "/bulkstatus/7"))


async def test_a_limited_caller_brings_no_provenance_along(
    start_gateway: StartGateway, platform: Platform
) -> None:
    """Fields that create something are judged at a status URL, too."""
    async with start_gateway(
        callers=callers(operations=["$export"], interactions=["operation"])
    ) as gateway:
        await exported(gateway, platform, f"{platform.url}/bulkstatus/7")
        fields = ("X-Api-Key: key-of-his", 'X-Provenance: {"resourceType":"Provenance"}')
        request = get("/fhir/bulkstatus/7", *fields, method="DELETE")
        assert refused(await ask(gateway.address, request))


async def test_the_latest_are_remembered(start_gateway: StartGateway, platform: Platform) -> None:
    """Memory is bounded; of one caller's, the oldest give way."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        for number in range(300):
            await exported(gateway, platform, f"{platform.url}/bulkstatus/{number}")
        platform.script(http(202, b""))
        assert (await asked(gateway, "/bulkstatus/299")).status == 202
        assert refused(await asked(gateway, "/bulkstatus/0"))


async def test_a_reload_forgets_nothing(start_gateway: StartGateway, platform: Platform) -> None:
    """An export takes hours, and settings change meanwhile."""
    async with start_gateway(callers=callers(operations=["$export"])) as gateway:
        await exported(gateway, platform, f"{platform.url}/bulkstatus/7")
        await gateway.gateway.reload(gateway.settings)
        platform.script(http(202, b""))
        assert (await asked(gateway, "/bulkstatus/7")).status == 202
