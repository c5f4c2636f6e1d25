"""The operators' listener of a gateway with a thousand callers and credentials, over sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from html import unescape

import aiohttp
import pytest

from tests.doubles.clinics import (
    ClinicSso,
    RefusingPlatform,
    clinic_names,
    clinic_settings,
    wait_for_tokens,
)
from tests.doubles.gateway import RunningGateway, running_gateway
from tests.doubles.metrics import total
from tests.doubles.platform import Platform

KIB = 1024
# How many clinics there are, of which the thousand takes long.
clinics = pytest.mark.parametrize(
    "names", [clinic_names(300), pytest.param(clinic_names(1000), marks=pytest.mark.ci)], ids=len
)
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"


@pytest.fixture
async def sso() -> AsyncIterator[ClinicSso]:
    async with ClinicSso() as running:
        yield running


async def read_all(gateway: RunningGateway, names: Sequence[str]) -> list[int]:
    """Send a read of each caller; return the statuses."""
    async with aiohttp.ClientSession() as session:
        statuses = []
        for name in names:
            headers = {"X-Api-Key": f"key-{name}"}
            async with session.get(f"{gateway.url}/Patient/1", headers=headers) as response:
                statuses.append(response.status)
        return statuses


def rows(page: str, table: str) -> list[list[str]]:
    """Return the cells of a table, as text."""
    part = page.partition(f'id="{table}-rows"')[2].partition("</tbody>")[0]
    return [
        [unescape(re.sub(r"<[^>]+>", "", cell)).strip() for cell in row.split("</td>")[:-1]]
        for row in part.partition("<tbody>")[2].split("</tr>")[:-1]
    ]


def names_in(text: str, metric: str) -> set[str]:
    """Return the values of the label `credential` of a metric."""
    return set(re.findall(rf'^{metric}{{credential="([^"]+)"', text, re.MULTILINE))


async def sizes(gateway: RunningGateway) -> dict[str, int]:
    found = {}
    for path in ("/status", "/readyz", "/metrics"):
        found[path] = len((await gateway.admin_page(path))[1].encode())
    _, openmetrics = await gateway.admin_page("/metrics", Accept=OPENMETRICS)
    found["openmetrics"] = len(openmetrics.encode())
    return found


async def wait_for_failures(gateway: RunningGateway, count: int) -> None:
    """Return when as many token requests have failed as in an outage."""
    name = "dhp_gateway_token_requests_total"
    while await gateway.metric(name, outcome="transient") < count:  # noqa: ASYNC110 - a scrape tells
        await asyncio.sleep(0.2)


def assert_small(found: dict[str, int]) -> None:
    assert found["/status"] < 200 * KIB
    assert found["/readyz"] < 4 * KIB
    assert found["/metrics"] < 400 * KIB
    assert found["openmetrics"] < 400 * KIB


@clinics
async def test_three_failing_of_a_thousand_are_named(
    sso: ClinicSso, platform: Platform, names: Sequence[str]
) -> None:
    """First on the page, in the metrics and in the readiness; the rest are numbers."""
    failing = (names[-1], names[250], names[7])
    for name in failing:
        sso.reject_client(name)
    async with running_gateway(platform.url, sso.token_url, **clinic_settings(names)) as gateway:
        await wait_for_tokens(gateway, len(names) - len(failing))
        statuses = await read_all(gateway, names)
        assert statuses.count(502) == len(failing)
        assert_small(await sizes(gateway))
        _, page = await gateway.admin_page("/status?lang=en")
        _, found = await gateway.admin_page("/status?lang=en&credential=NIC-0042&caller=0250")
        _, none = await gateway.admin_page("/status?lang=en&credential=%3Cb%3E")
        _, russian = await gateway.admin_page("/status?lang=ru")
        facts, (_, readiness) = await gateway.facts(), await gateway.ready()
        metrics = await gateway.metrics()
    tokens, callers = rows(page, "tokens"), rows(page, "callers")
    assert {row[0] for row in tokens[:3]} == {row[0] for row in callers[:3]} == set(failing)
    assert all("missing" in row[1] for row in tokens[:3])
    assert (len(tokens), len(callers)) == (21, 21)
    assert tokens[-1] == callers[-1] == [f"{len(names) - 20} more are in /status.json."]
    assert f"{len(names) - 3} of {len(names)} are well" in page
    assert [row[0] for row in rows(found, "tokens")] == [names[42]]
    assert [row[0] for row in rows(found, "callers")] == [names[250]]
    assert 'href="?lang=uz&amp;credential=NIC-0042&amp;caller=0250"' in found
    assert rows(none, "tokens") == []
    assert "&lt;b&gt;" in none
    assert "<b>" not in none.partition('id="search"')[2].partition("</section>")[0]
    assert "Поиск по имени" in russian
    assert len(facts["tokens"]) == len(facts["callers"]) == len(names)
    assert f"callers[{len(names) - 1}].name" in facts["settings"]
    assert sorted(readiness["degraded"]["credentials"]["names"]) == sorted(failing)
    requests = "dhp_gateway_token_requests_total"
    assert names_in(metrics, requests) == {*failing, "(others)"}
    assert total(metrics, requests, credential=failing[0], outcome="refused") == 1
    assert total(metrics, requests, outcome="ok") == len(names) - len(failing)
    expiry = "dhp_gateway_token_expiry_timestamp_seconds"
    assert names_in(metrics, expiry) == {*failing, "(others)"}
    assert total(metrics, expiry, credential=failing[1]) == 0
    assert total(metrics, expiry, credential="(others)") > 0
    durations = "dhp_gateway_token_request_duration_seconds_count"
    assert total(metrics, durations, credential="(others)") == len(names)


@clinics
async def test_an_outage_of_a_thousand_fits_as_well(
    sso: ClinicSso, platform: Platform, names: Sequence[str]
) -> None:
    sso.is_down = True
    async with running_gateway(platform.url, sso.token_url, **clinic_settings(names)) as gateway:
        requests = "dhp_gateway_token_requests_total"
        await wait_for_failures(gateway, len(names))
        assert set(await read_all(gateway, names)) == {503}
        assert_small(await sizes(gateway))
        status, readiness = await gateway.ready()
        _, page = await gateway.admin_page("/status?lang=en")
        metrics = await gateway.metrics()
        sso.is_down = False
        await wait_for_tokens(gateway, len(names))
        assert (await gateway.ready())[0] == 200
    assert status == 503
    assert readiness["degraded"]["credentials"]["count"] == len(names)
    assert len(readiness["degraded"]["credentials"]["names"]) == 20
    assert len(rows(page, "tokens")) == 21
    named = names_in(metrics, requests)
    assert len(named) == 51
    assert "(others)" in named
    assert total(metrics, "dhp_gateway_token_expiry_timestamp_seconds") == 0


async def test_one_that_fails_after_an_outage_is_named_as_well(
    sso: ClinicSso, platform: Platform
) -> None:
    """It takes the place of one that is well again."""
    names = clinic_names(60)
    sso.is_down = True
    async with running_gateway(platform.url, sso.token_url, **clinic_settings(names)) as gateway:
        requests = "dhp_gateway_token_requests_total"
        await wait_for_failures(gateway, len(names))
        before = names_in(await gateway.metrics(), requests)
        sso.is_down = False
        await wait_for_tokens(gateway, len(names))
        late = next(name for name in names if name not in before)
        sso.reject_client(late)
        platform.respond(RefusingPlatform({late}))
        async with aiohttp.request(
            "GET", f"{gateway.url}/Patient/1", headers={"X-Api-Key": f"key-{late}"}
        ) as response:
            assert response.status == 502
        metrics = await gateway.metrics()
    named = names_in(metrics, requests)
    assert len(before) == len(named) == 51
    assert late in named
    assert total(metrics, requests, credential=late, outcome="refused") == 1


async def test_few_credentials_are_all_named(sso: ClinicSso, platform: Platform) -> None:
    names = clinic_names(50)
    async with running_gateway(platform.url, sso.token_url, **clinic_settings(names)) as gateway:
        await wait_for_tokens(gateway, len(names))
        metrics = await gateway.metrics()
        _, page = await gateway.admin_page("/status?lang=en")
    for metric in (
        "dhp_gateway_token_requests_total",
        "dhp_gateway_token_expiry_timestamp_seconds",
        "dhp_gateway_token_waiters",
        "dhp_gateway_token_request_duration_seconds_count",
    ):
        assert names_in(metrics, metric) == set(names)
    assert rows(page, "tokens")[-1] == ["30 more are in /status.json."]
