"""The charts of the status page, by the hour that they show."""

from __future__ import annotations

import re

import pytest

from gateway.admin.status_page import render_status_page
from gateway.health.recent_requests import MINUTES
from gateway.i18n import LANGUAGES, Message
from tests.doubles.gateway_states import SUCCEEDED, GatewayState

FAILED = (502, "upstream-failed")
BAR = re.compile(r'<rect x="(\d+)" y="[\d.]+" width="4" height="([\d.]+)">')


async def charts(gateway: GatewayState, language: str = "en") -> tuple[str, str]:
    html = render_status_page(gateway.status().facts(language), gateway.health.components())
    requests, errors = re.findall("<figure>.*?</figure>", html)
    return requests, errors


async def bars(gateway: GatewayState) -> list[tuple[int, float]]:
    """Minutes ago and height in hundredths of the requests' bars."""
    (requests, _) = await charts(gateway)
    assert 'viewBox="0 0 300 60"' in requests
    found = BAR.findall(requests)
    return [(MINUTES - 1 - int(x) // 5, round(float(height) / 0.6)) for x, height in found]


async def test_one_minute_has_the_width_of_a_sixtieth() -> None:
    gateway = GatewayState()
    gateway.serve(0, SUCCEEDED)
    assert await bars(gateway) == [(0, 20)]


async def test_bars_stand_at_their_minutes() -> None:
    gateway = GatewayState()
    for minutes_ago, requests in ((59, 2), (30, 10), (1, 4)):
        gateway.serve(minutes_ago, *[SUCCEEDED] * requests)
    assert await bars(gateway) == [(59, 20), (30, 100), (1, 40)]


async def test_the_axis_covers_an_hour() -> None:
    gateway = GatewayState()
    gateway.serve(0, SUCCEEDED)
    for figure in await charts(gateway):
        times = re.findall(r'<time datetime="2027-01-15T(\d\d:\d\d):', figure)
        assert times == ["07:00", "07:15", "07:30", "07:45"]
        assert figure.count("<span>now</span>") == 1


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_empty_chart_has_a_note(language: str) -> None:
    no_requests = Message("No requests yet.").in_language(language)
    for figure in await charts(GatewayState(), language):
        assert no_requests in figure
        assert Message("Most in one minute").in_language(language) not in figure
        assert "<svg" not in figure
    gateway = GatewayState()
    gateway.serve(0, SUCCEEDED)
    requests, errors = await charts(gateway, language)
    assert Message("No errors.").in_language(language) in errors
    assert no_requests not in requests + errors


async def test_rejections_are_stacked_on_errors() -> None:
    gateway = GatewayState()
    gateway.serve(0, *[FAILED] * 4, *[(404, "")] * 6)
    gateway.serve(1, (404, "upstream-non-fhir"))
    (_, errors) = await charts(gateway)
    drawn = {
        kind: BAR.findall(bars) for kind, bars in re.findall(r'<g class="(\w+)">(.*?)</g>', errors)
    }
    assert drawn == {"errors": [("295", "24")], "refusals": [("290", "6"), ("295", "36")]}
    assert "UTC: Refused 6</title>" in errors
    assert "No errors." not in errors


async def test_shares_of_errors_are_rounded() -> None:
    gateway = GatewayState()
    gateway.serve(0, *[FAILED] * 15)
    assert "Errors: 15 (100\N{NO-BREAK SPACE}%)" in (await charts(gateway))[1]
    gateway.serve(9, *[SUCCEEDED] * 99_985)
    assert "(&lt; 0.1\N{NO-BREAK SPACE}%)" in (await charts(gateway))[1]
    assert "Requests: 100,000" in (await charts(gateway))[0]
