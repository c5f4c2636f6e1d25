"""Page, readiness, `/status.json` and metric of a real gateway agree with what is the case."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import re
import signal
import time
from dataclasses import dataclass
from html import unescape
from typing import Any

import pytest
import trustme

from gateway.guidance import PLATFORM_CAUSES
from gateway.health.health import ANSWER_WORDS
from tests.doubles import platform as answers
from tests.doubles import sso as sso_answers
from tests.doubles.certificates import server_context
from tests.doubles.platform import Platform, PlatformConnection
from tests.doubles.processes import free_port
from tests.doubles.sso import Sso
from tests.doubles.wire import fetch, get
from tests.extent import left_to_ci
from tests.lifecycle.conftest import PATIENCE, Service, StartService

CHECKED = {"admin": {"probe_interval": 1}}
STATEMENT = answers.fhir(
    b'{"resourceType":"CapabilityStatement","status":"active"}', 200, ("ETag", 'W/"7"')
)


@dataclass
class StatusViews:
    """What all of them say at one moment."""

    facts: dict[str, Any]
    page: str
    ready: int
    failing: list[str]
    usable: dict[str, float]

    @property
    def care(self) -> tuple[str, str]:
        return self.facts["care"]["answer"], self.facts["care"]["reason"]

    @property
    def platform(self) -> tuple[str, str]:
        return self.facts["platform"]["state"], self.facts["platform"]["reason"]

    @property
    def tile(self) -> str:
        """Return the words on the platform's card."""
        (card,) = re.findall(r"<h3>Platform</h3>(.*?)</section>", self.page)
        return unescape(re.sub(r"<[^>]*>", " ", card))


async def status_views(service: Service) -> StatusViews:
    _, facts = await service.operators("/status.json")
    _, page = await service.operators("/status?lang=en")
    ready, body = await service.operators("/readyz")
    _, metrics = await service.operators("/metrics")
    usable = dict(
        re.findall(r'^dhp_gateway_platform_usable\{reason="(.*?)"\} (.*)$', metrics, re.M)
    )
    return StatusViews(
        json.loads(facts),
        page,
        ready,
        json.loads(body)["failing"],
        {reason: float(value) for reason, value in usable.items()},
    )


async def wait_until_told(service: Service, answer: str, reason: str) -> StatusViews:
    """Return all of them once they have this service status.

    It must be so before and after as well: a token that is fetched in between changes it.
    """
    deadline = time.monotonic() + PATIENCE
    in_a_row: list[StatusViews] = []
    while len(in_a_row) < 3:
        found = await status_views(service)
        in_a_row.append(found)
        if found.care != (answer, reason):
            in_a_row.clear()
            if service.process.ended or time.monotonic() > deadline:
                raise service.process.failure(f"not {answer}, {reason}: {found.facts['care']}")
            await asyncio.sleep(0.1)
    return in_a_row[1]


async def call(service: Service, times: int, path: str = "/fhir/Patient/1") -> list[int]:
    return [(await fetch(service.address, get(path))).status for _ in range(times)]


def stops(found: StatusViews, reason: str) -> None:
    """Check that no view reports that requests pass."""
    assert found.care == ("no", reason)
    assert found.platform == ("fails", reason)
    assert (found.ready, found.failing[-1]) == (503, "platform")
    assert found.usable == {reason: 0.0}
    assert f"✖ {PLATFORM_CAUSES[reason]}" in found.tile
    assert f"<strong>{ANSWER_WORDS['no']}</strong>" in found.page


async def test_a_base_url_without_a_fhir_server_is_named(
    start_service: StartService, platform: Platform
) -> None:
    """A web server responds with 404 to everything."""
    platform.respond(answers.page(404))
    service = await start_service.ready()
    assert await call(service, 40) == [404] * 40
    found = await wait_until_told(service, "no", "platform-not-fhir")
    stops(found, "platform-not-fhir")
    assert "platform.fhir_base_url" in found.facts["care"]["text"]
    # Refusals are counted as what they are.
    hour = found.facts["last_hour"]
    assert (hour["errors"], hour["refusals"]) == (0, 40)
    assert found.facts["callers"][0]["refusals"] == 40
    assert "Errors: 0. Refused: 40" in found.page


@pytest.mark.parametrize("answer", [answers.outcome(403), answers.unauthorized()])
async def test_a_rejected_client_is_named(
    start_service: StartService, platform: Platform, answer: bytes
) -> None:
    platform.respond(answer)
    callers = [{"name": "lab", "networks": ["127.0.0.0/8"], "credential": "ward-3"}]
    credentials = {"ward-3": {"client_id": "a", "client_secret": "planted-other"}}
    service = await start_service.ready(**CHECKED, callers=callers, credentials=credentials)
    await call(service, 15)
    await service.wait_for_metric(1, "dhp_gateway_platform_probes_total", found="platform-refuses")
    found = await wait_until_told(service, "no", "platform-refuses")
    stops(found, "platform-refuses")
    assert found.facts["care"]["credential"] == "ward-3"
    assert "ward-3" in found.facts["care"]["text"]
    hour, (error,) = found.facts["last_hour"], found.facts["errors"]
    assert hour["errors"] + hour["refusals"] == error["since_start"] == 15


async def test_a_probe_finds_a_closed_port_without_requests_of_callers(
    start_service: StartService,
) -> None:
    url = f"http://127.0.0.1:{free_port()}/fhir"
    service = await start_service.ready(
        admin={"probe_interval": 3}, platform={"fhir_base_url": url}
    )
    found = await status_views(service)
    assert found.care == ("untried", "untried")
    assert found.usable == {"untried": 1.0}
    assert "? not tried yet" in found.tile
    found = await wait_until_told(service, "no", "platform-unreachable")
    stops(found, "platform-unreachable")
    assert found.facts["platform"]["probe"]["found"] == "platform-unreachable"
    assert "The gateway itself checked" in found.tile
    assert found.facts["last_hour"]["requests"] == 0
    assert service.audit("exchange") == []


async def test_probes_find_an_outage_and_its_end(
    start_service: StartService, platform: Platform
) -> None:
    platform.respond(answers.outcome(503))
    breaker = {"min_requests": 2, "open_for": 1}
    retries = {"max_attempts": 1}
    service = await start_service.ready(**CHECKED, circuit_breaker=breaker, retries=retries)
    await call(service, 3)
    found = await wait_until_told(service, "no", "platform-fails")
    assert found.platform == ("fails", "platform-fails")
    assert "platform" in found.failing
    platform.respond(STATEMENT)
    found = await wait_until_told(service, "yes", "fine")
    assert found.facts["platform"]["circuit"] == "closed"
    assert found.usable == {"answers": 1.0}
    assert "✔ answers" in found.tile
    assert "Since" in found.tile
    assert found.ready == 200


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sso_answers.oauth_error("invalid_client", 401), "token-refused"),
        (sso_answers.status(503), "sso-unavailable"),
    ],
)
async def test_without_a_token_the_state_of_the_platform_is_unknown(
    start_service: StartService, sso: Sso, answer: sso_answers.ScriptedResponse, reason: str
) -> None:
    sso.respond(answer)
    service = start_service(**CHECKED)
    await service.wait_until_ready(503)
    found = await wait_until_told(service, "no", reason)
    assert found.platform == ("untried", "untried")
    assert found.usable == {reason: 0.0}
    assert "? not tried yet" in found.tile
    assert found.failing == ["token:default"]


async def test_95_of_100_rejected_tokens_are_no_good_state(
    start_service: StartService, platform: Platform
) -> None:
    service = await start_service.ready()
    assert await call(service, 5) == [200] * 5
    platform.respond(answers.unauthorized())
    await call(service, 95)
    found = await wait_until_told(service, "no", "platform-refuses")
    assert "✔" not in found.tile


async def test_an_outbox_that_does_not_deliver_is_no_good_state(
    start_service: StartService, platform: Platform, tmp_path: Any
) -> None:
    platform.respond(answers.outcome(503))
    outbox = {
        "enabled": True,
        "url": f"sqlite:///{tmp_path / 'outbox.db'}",
        "encryption_key": "cGxhbnRlZC1wbGFudGVkLXBsYW50ZWQtcGxhbnRlZC0",
    }
    callers = [{"name": "lab", "networks": ["127.0.0.0/8"], "outbox": "always"}]
    service = await start_service.ready(**CHECKED, outbox=outbox, callers=callers)
    body = b'{"resourceType":"Patient","id":"1"}'
    head = (
        b"PUT /fhir/Patient/1 HTTP/1.1\r\nHost: a\r\nContent-Type: application/fhir+json\r\n"
        b"Content-Length: %d\r\n\r\n" % len(body)
    )
    assert (await fetch(service.address, head + body)).status == 202
    found = await wait_until_told(service, "no", "platform-fails")
    stops(found, "platform-fails")


LOGIN = answers.http(
    200, b"<!doctype html><html><form>password</form></html>", ("Content-Type", "text/html")
)


async def hang(connection: PlatformConnection) -> None:
    await asyncio.sleep(3600)


async def cut(connection: PlatformConnection) -> None:
    connection.writer.write(STATEMENT[:-9])
    connection.writer.close()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (LOGIN, "platform-not-fhir"),
        (answers.http(200), "platform-not-fhir"),
        (answers.fhir(b"{}"), "platform-not-fhir"),
        (answers.http(302, b"", ("Location", "/login")), "platform-not-fhir"),
        (answers.page(502), "platform-fails"),
        (answers.outcome(429), "platform-fails"),
        (hang, "platform-timeout"),
        (cut, "platform-fails"),
    ],
)
@pytest.mark.parametrize("calls", left_to_ci([0, 12], but=1))
async def test_every_kind_of_total_failure_is_found(
    start_service: StartService,
    platform: Platform,
    answer: answers.ScriptedResponse,
    reason: str,
    calls: int,
) -> None:
    platform.respond(answer)
    times = {"response_timeout": 0.3} if answer is hang else {}
    breaker = {"min_requests": 1000}
    service = await start_service.ready(**CHECKED, platform=times, circuit_breaker=breaker)
    await call(service, calls)
    stops(await wait_until_told(service, "no", reason), reason)


async def test_untrusted_certificates_and_unknown_hosts_are_distinguished(
    start_service: StartService,
) -> None:
    async with Platform(server_context(trustme.CA(), "127.0.0.1")) as untrusted:
        cases = {
            "platform-tls": untrusted.url,
            "platform-unreachable": "https://nowhere.invalid/fhir",
        }
        for reason, url in cases.items():
            service = await start_service.ready(**CHECKED, platform={"fhir_base_url": url})
            stops(await wait_until_told(service, "no", reason), reason)


async def test_errors_of_a_caller_are_no_failure(
    start_service: StartService, platform: Platform
) -> None:
    service = await start_service.ready(**CHECKED)
    refusals = itertools.cycle((answers.outcome(404), answers.page(404), answers.outcome(403)))

    async def metadata_only(connection: PlatformConnection) -> None:
        connection.request.complete = True
        connection.writer.write(
            STATEMENT if connection.request.target == "/r5/metadata" else next(refusals)
        )
        await connection.writer.drain()

    platform.respond(metadata_only)
    await service.wait_for_metric(1, "dhp_gateway_platform_probes_total", found="answers")
    while await service.metric("dhp_gateway_platform_probes_total") < 2:
        await call(service, 5)
        found = await status_views(service)
        assert found.facts["care"]["answer"] != "no"
        assert found.ready == 200
        await asyncio.sleep(0.3)
    assert found.care == ("degraded", "many-refusals")
    assert set(found.usable.values()) == {1.0}


async def test_a_probe_is_conditional_and_counted_apart(
    start_service: StartService, platform: Platform
) -> None:
    platform.respond(STATEMENT)
    service = await start_service.ready(**CHECKED)
    await service.wait_for_metric(2, "dhp_gateway_platform_probes_total", found="answers")
    first, second, *_ = platform.gateway_requests
    assert (first.method, first.target) == ("GET", "/r5/metadata")
    assert first.header("authorization") == "Bearer token-1"
    assert first.header("if-none-match") is None
    assert second.header("if-none-match") == 'W/"7"'
    assert first.connection == second.connection
    assert await service.metric("dhp_gateway_requests_total") == 0
    assert (await status_views(service)).facts["last_hour"]["requests"] == 0
    assert service.audit("exchange") == []


PLAIN = STATEMENT.partition(b"\r\n\r\n")[2]
JSON = ("Content-Type", "application/fhir+json")


async def leave(connection: PlatformConnection) -> None:
    """Send a valid response, and close the connection without notice."""
    connection.request.complete = True
    connection.writer.write(STATEMENT)
    await connection.writer.drain()
    await asyncio.sleep(0.5)
    connection.writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        answers.http(200, gzip.compress(PLAIN), JSON, ("Content-Encoding", "gzip")),
        answers.fhir(b'{"resourceType":"CapabilityStatement","title":"%s"}' % (b"a" * 3_000_000)),
        answers.http(
            200,
            b'<CapabilityStatement xmlns="http://hl7.org/fhir"/>',
            ("Content-Type", "application/fhir+xml"),
        ),
        leave,
    ],
    ids=["gzip", "long", "xml", "kept and then closed"],
)
async def test_any_statement_counts_as_a_response(
    start_service: StartService, platform: Platform, answer: answers.ScriptedResponse
) -> None:
    platform.respond(answer)
    service = await start_service.ready(**CHECKED)
    await service.wait_for_metric(2, "dhp_gateway_platform_probes_total")
    assert await service.metric("dhp_gateway_platform_probes_total", found="answers") >= 2
    assert (await status_views(service)).care == ("yes", "fine")


async def test_a_probe_on_a_dead_idle_connection_is_sent_again_on_a_new_one(
    start_service: StartService, platform: Platform
) -> None:
    async def close_at_the_second(connection: PlatformConnection) -> None:
        if len(platform.gateway_requests) == 2:
            connection.writer.close()
            return
        connection.request.complete = True
        connection.writer.write(STATEMENT)
        await connection.writer.drain()

    platform.respond(close_at_the_second)
    service = await start_service.ready(**CHECKED)
    await service.wait_for_metric(2, "dhp_gateway_platform_probes_total")
    first, second, third, *_ = platform.gateway_requests
    assert first.connection == second.connection != third.connection
    assert await service.metric("dhp_gateway_platform_probes_total", found="answers") >= 2


async def test_a_corrected_base_url_starts_without_old_signals(
    start_service: StartService, platform: Platform
) -> None:
    wrong = f"http://127.0.0.1:{free_port()}/fhir"
    service = await start_service.ready(**CHECKED, platform={"fhir_base_url": wrong})
    await wait_until_told(service, "no", "platform-unreachable")
    service.change(admin={"probe_interval": 0}, platform={"fhir_base_url": platform.url})
    service.send(signal.SIGHUP)
    found = await wait_until_told(service, "untried", "untried")
    assert found.usable == {"untried": 1.0}
    assert found.ready == 200
