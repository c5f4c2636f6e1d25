"""The charts of the status page, by the hour that they show."""

from __future__ import annotations

import re

import pytest

from gateway.admin.status_page import render_status_page
from gateway.health.recent_requests import MINUTES
from gateway.i18n import LANGUAGES, Message
from tests.doubles.duty import FINE, Duty

FAILED = (502, "upstream-failed")
BAR = re.compile(r'<rect x="(\d+)" y="[\d.]+" width="4" height="([\d.]+)">')


async def charts(duty: Duty, language: str = "en") -> list[str]:
    html = render_status_page(duty.status().facts(language), duty.health.components())
    return re.findall("<figure>.*?</figure>", html)


async def bars(duty: Duty) -> list[tuple[int, float]]:
    """Minutes ago and height in hundredths of the requests' bars."""
    (requests, _) = await charts(duty)
    assert 'viewBox="0 0 300 60"' in requests
    found = BAR.findall(requests)
    return [(MINUTES - 1 - int(x) // 5, round(float(height) / 0.6)) for x, height in found]


async def test_one_minute_has_the_width_of_a_sixtieth() -> None:
    duty = Duty()
    duty.serve(0, FINE)
    assert await bars(duty) == [(0, 20)]


async def test_bars_stand_at_their_minutes() -> None:
    duty = Duty()
    for minutes_ago, requests in ((59, 2), (30, 10), (1, 4)):
        duty.serve(minutes_ago, *[FINE] * requests)
    assert await bars(duty) == [(59, 20), (30, 100), (1, 40)]


async def test_the_axis_covers_an_hour() -> None:
    duty = Duty()
    duty.serve(0, FINE)
    for figure in await charts(duty):
        times = re.findall(r'<time datetime="2027-01-15T(\d\d:\d\d):', figure)
        assert times == ["07:00", "07:15", "07:30", "07:45"]
        assert figure.count("<span>now</span>") == 1


@pytest.mark.parametrize("language", LANGUAGES)
async def test_an_empty_chart_has_a_note(language: str) -> None:
    no_requests = Message("No requests yet.").in_language(language)
    for figure in await charts(Duty(), language):
        assert no_requests in figure
        assert Message("Most in one minute").in_language(language) not in figure
        assert "<svg" not in figure
    duty = Duty()
    duty.serve(0, FINE)
    requests, errors = await charts(duty, language)
    assert Message("No errors.").in_language(language) in errors
    assert no_requests not in requests + errors


async def test_rejections_are_stacked_on_errors() -> None:
    duty = Duty()
    duty.serve(0, *[FAILED] * 4, *[(404, "")] * 6)
    duty.serve(1, (404, "upstream-non-fhir"))
    (_, errors) = await charts(duty)
    drawn = {
        kind: BAR.findall(bars) for kind, bars in re.findall(r'<g class="(\w+)">(.*?)</g>', errors)
    }
    assert drawn == {"errors": [("295", "24")], "refusals": [("290", "6"), ("295", "36")]}
    assert "UTC: Refused 6</title>" in errors
    assert "No errors." not in errors


async def test_shares_of_errors_are_rounded() -> None:
    duty = Duty()
    duty.serve(0, *[FAILED] * 15)
    assert "Errors: 15 (100\N{NO-BREAK SPACE}%)" in (await charts(duty))[1]
    duty.serve(9, *[FINE] * 99_985)
    assert "(&lt; 0.1\N{NO-BREAK SPACE}%)" in (await charts(duty))[1]
    assert "Requests: 100,000" in (await charts(duty))[0]
