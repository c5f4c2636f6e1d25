"""Page, readiness, `/status.json` and metric of a real gateway tell what is so, and why."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import re
import signal
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html import unescape
from typing import Any

import pytest
import trustme

from gateway.guidance import PLATFORM_CAUSES
from gateway.health.health import ANSWER_WORDS
from tests.doubles import platform as answers
from tests.doubles import sso as sso_answers
from tests.doubles.platform import Line, Platform
from tests.doubles.processes import free_port
from tests.doubles.sso import Sso
from tests.doubles.wire import ask, get
from tests.lifecycle.conftest import PATIENCE, Service, StartService

CHECKED = {"admin": {"probe_interval": 1}}
STATEMENT = answers.fhir(
    b'{"resourceType":"CapabilityStatement","status":"active"}', 200, ("ETag", 'W/"7"')
)


@dataclass
class Told:
    """What all of them say at one moment."""

    facts: dict[str, Any]
    page: str
    ready: int
    failing: list[str]
    usable: dict[str, float]

    @property
    def care(self) -> tuple[str, str]:
        """The verdict."""
        return self.facts["care"]["answer"], self.facts["care"]["reason"]

    @property
    def platform(self) -> tuple[str, str]:
        """What is known of the platform itself."""
        return self.facts["platform"]["state"], self.facts["platform"]["reason"]

    @property
    def tile(self) -> str:
        """The words on the platform's card."""
        (card,) = re.findall(r"<h3>Platform</h3>(.*?)</section>", self.page)
        return unescape(re.sub(r"<[^>]*>", " ", card))


async def told(service: Service) -> Told:
    """Ask all of them."""
    _, facts = await service.operators("/status.json")
    _, page = await service.operators("/status?lang=en")
    ready, body = await service.operators("/readyz")
    _, metrics = await service.operators("/metrics")
    usable = dict(
        re.findall(r'^dhp_gateway_platform_usable\{reason="(.*?)"\} (.*)$', metrics, re.M)
    )
    return Told(
        json.loads(facts),
        page,
        ready,
        json.loads(body)["failing"],
        {reason: float(value) for reason, value in usable.items()},
    )


async def until_told(service: Service, answer: str, reason: str) -> Told:
    """All of them once the verdict is so; a page that is asked for in between is old.

    The verdict is so before and after as well: a token that is fetched anew in between changes it.
    """
    deadline = time.monotonic() + PATIENCE
    in_a_row: list[Told] = []
    while len(in_a_row) < 3:
        found = await told(service)
        in_a_row.append(found)
        if found.care != (answer, reason):
            in_a_row.clear()
            if service.process.ended or time.monotonic() > deadline:
                raise service.process.failure(f"not {answer}, {reason}: {found.facts['care']}")
            await asyncio.sleep(0.1)
    return in_a_row[1]


async def call(service: Service, times: int, path: str = "/fhir/Patient/1") -> list[int]:
    """The answers' statuses."""
    return [(await ask(service.address, get(path))).status for _ in range(times)]


def stops(found: Told, reason: str) -> None:
    """Check that no view reports that requests pass."""
    assert found.care == ("no", reason)
    assert found.platform == ("fails", reason)
    assert (found.ready, found.failing[-1]) == (503, "platform")
    assert found.usable == {reason: 0.0}
    assert f"✖ {PLATFORM_CAUSES[reason]}" in found.tile
    assert f"<strong>{ANSWER_WORDS['no']}</strong>" in found.page


async def test_a_wrong_address_is_named(start_service: StartService, platform: Platform) -> None:
    """All is 404 of a web server: no FHIR server answers there, see platform.fhir_base_url."""
    platform.answer(answers.page(404))
    service = await start_service.ready()
    assert await call(service, 40) == [404] * 40
    found = await until_told(service, "no", "platform-not-fhir")
    stops(found, "platform-not-fhir")
    assert "platform.fhir_base_url" in found.facts["care"]["text"]
    # Refusals are counted as what they are.
    hour = found.facts["last_hour"]
    assert (hour["errors"], hour["refusals"]) == (0, 40)
    assert found.facts["callers"][0]["refusals"] == 40
    assert "Errors: 0. Refused: 40" in found.page


@pytest.mark.parametrize("answer", [answers.outcome(403), answers.unauthorized()])
async def test_a_client_that_is_refused_is_named(
    start_service: StartService, platform: Platform, answer: bytes
) -> None:
    """403 or 401 to everything, also to the gateway's own question: the credential is named."""
    platform.answer(answer)
    callers = [{"name": "lab", "networks": ["127.0.0.0/8"], "credential": "ward-3"}]
    credentials = {"ward-3": {"client_id": "a", "client_secret": "planted-other"}}
    service = await start_service.ready(**CHECKED, callers=callers, credentials=credentials)
    await call(service, 15)
    await service.until_metric(1, "dhp_gateway_platform_probes_total", found="platform-refuses")
    found = await until_told(service, "no", "platform-refuses")
    stops(found, "platform-refuses")
    assert found.facts["care"]["credential"] == "ward-3"
    assert "ward-3" in found.facts["care"]["text"]
    hour, (error,) = found.facts["last_hour"], found.facts["errors"]
    assert hour["errors"] + hour["refusals"] == error["since_start"] == 15


async def test_a_closed_port_is_found_although_nobody_asks(start_service: StartService) -> None:
    """Not tried, then what the gateway's own question found."""
    url = f"http://127.0.0.1:{free_port()}/fhir"
    service = await start_service.ready(
        admin={"probe_interval": 3}, platform={"fhir_base_url": url}
    )
    found = await told(service)
    assert found.care == ("untried", "untried")
    assert found.usable == {"untried": 1.0}
    assert "? not tried yet" in found.tile
    found = await until_told(service, "no", "platform-unreachable")
    stops(found, "platform-unreachable")
    assert found.facts["platform"]["probe"]["found"] == "platform-unreachable"
    assert "The gateway itself asked" in found.tile
    assert found.facts["last_hour"]["requests"] == 0
    assert service.audit("exchange") == []


async def test_after_a_circuit_opened_the_gateway_finds_out(
    start_service: StartService, platform: Platform
) -> None:
    """Probes find first that the platform still fails, then since when it is back."""
    platform.answer(answers.outcome(503))
    breaker = {"min_requests": 2, "open_for": 1}
    retries = {"max_attempts": 1}
    service = await start_service.ready(**CHECKED, circuit_breaker=breaker, retries=retries)
    await call(service, 3)
    found = await until_told(service, "no", "platform-fails")
    assert found.platform == ("fails", "platform-fails")
    assert "platform" in found.failing
    platform.answer(STATEMENT)
    found = await until_told(service, "yes", "fine")
    assert found.facts["platform"]["circuit"] == "closed"
    assert found.usable == {"answers": 1.0}
    assert "✔ answers" in found.tile
    assert "Since" in found.tile
    assert found.ready == 200


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (sso_answers.refusal("invalid_client", 401), "token-refused"),
        (sso_answers.status(503), "sso-unavailable"),
    ],
)
async def test_without_a_token_the_platform_is_not_praised(
    start_service: StartService, sso: Sso, answer: sso_answers.Answer, reason: str
) -> None:
    """No token, or a secret that is refused: nothing is known of the platform."""
    sso.handle(answer)
    service = start_service(**CHECKED)
    await service.until_ready(503)
    found = await until_told(service, "no", reason)
    assert found.platform == ("untried", "untried")
    assert found.usable == {reason: 0.0}
    assert "? not tried yet" in found.tile
    assert found.failing == ["token:default"]


async def test_nearly_every_token_rejected_is_no_green_tile(
    start_service: StartService, platform: Platform
) -> None:
    """95 of 100 are refused after a fresh token: neither yes nor a platform that is well."""
    service = await start_service.ready()
    assert await call(service, 5) == [200] * 5
    platform.answer(answers.unauthorized())
    await call(service, 95)
    found = await until_told(service, "no", "platform-refuses")
    assert "✔" not in found.tile


async def test_an_outbox_that_does_not_deliver_is_no_green_tile(
    start_service: StartService, platform: Platform, tmp_path: Any
) -> None:
    """Writes wait because the platform fails, and no other request reaches it."""
    platform.answer(answers.outcome(503))
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
    assert (await ask(service.address, head + body)).status == 202
    found = await until_told(service, "no", "platform-fails")
    stops(found, "platform-fails")


async def test_all_of_fifteen_fail(start_service: StartService, platform: Platform) -> None:
    """No, and 100 %, not 1e+02."""
    platform.answer(answers.outcome(500))
    service = await start_service.ready(circuit_breaker={"min_requests": 100})
    assert await call(service, 15) == [500] * 15
    found = await until_told(service, "no", "platform-fails")
    stops(found, "platform-fails")
    assert "Errors: 15 (100\u00a0%)" in found.page


LOGIN = answers.http(
    200, b"<!doctype html><html><form>password</form></html>", ("Content-Type", "text/html")
)


async def hang(line: Line) -> None:
    """No answer at all."""
    await asyncio.sleep(3600)


async def cut(line: Line) -> None:
    """An answer that breaks off."""
    line.writer.write(STATEMENT[:-9])
    line.writer.close()


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
@pytest.mark.parametrize("calls", [0, 12])
async def test_every_kind_of_total_failure_is_found(
    start_service: StartService, platform: Platform, answer: answers.Answer, reason: str, calls: int
) -> None:
    """Whatever answers, with callers or without."""
    platform.answer(answer)
    times = {"response_timeout": 0.3} if answer is hang else {}
    breaker = {"min_requests": 1000}
    service = await start_service.ready(**CHECKED, platform=times, circuit_breaker=breaker)
    await call(service, calls)
    stops(await until_told(service, "no", reason), reason)


@pytest.fixture
async def stranger() -> AsyncIterator[Platform]:
    """Yield a platform with a certificate of an unknown CA."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
    async with Platform(tls) as double:
        yield double


async def test_no_tls_and_no_name_are_told_apart(
    start_service: StartService, stranger: Platform
) -> None:
    """A certificate that is not trusted, and a host that does not exist."""
    cases = {"platform-tls": stranger.url, "platform-unreachable": "https://nowhere.invalid/fhir"}
    for reason, url in cases.items():
        service = await start_service.ready(**CHECKED, platform={"fhir_base_url": url})
        stops(await until_told(service, "no", reason), reason)


async def test_a_handful_of_mistakes_is_none_of_it(
    start_service: StartService, platform: Platform
) -> None:
    """A caller that asks for one missing id, for a path of no FHIR, for what it may not see."""
    service = await start_service.ready(**CHECKED)
    refusals = itertools.cycle((answers.outcome(404), answers.page(404), answers.outcome(403)))

    async def metadata_only(line: Line) -> None:
        line.seen.complete = True
        line.writer.write(STATEMENT if line.seen.target == "/r5/metadata" else next(refusals))
        await line.writer.drain()

    platform.answer(metadata_only)
    await service.until_metric(1, "dhp_gateway_platform_probes_total", found="answers")
    while await service.metric("dhp_gateway_platform_probes_total") < 3:
        await call(service, 5)
        found = await told(service)
        assert found.facts["care"]["answer"] != "no"
        assert found.ready == 200
        await asyncio.sleep(0.3)
    assert found.care == ("degraded", "many-refusals")
    assert set(found.usable.values()) == {1.0}


async def test_its_own_question_is_light_and_nobodys(
    start_service: StartService, platform: Platform
) -> None:
    """Conditional, with the token, at most once in the interval, and counted apart."""
    platform.answer(STATEMENT)
    service = await start_service.ready(**CHECKED)
    await service.until_metric(3, "dhp_gateway_platform_probes_total", found="answers")
    first, second, *_ = platform.questions
    assert (first.method, first.target) == ("GET", "/r5/metadata")
    assert first.header("authorization") == "Bearer token-1"
    assert first.header("if-none-match") is None
    assert second.header("if-none-match") == 'W/"7"'
    assert first.connection == second.connection
    assert await service.metric("dhp_gateway_requests_total") == 0
    assert (await told(service)).facts["last_hour"]["requests"] == 0
    assert service.audit("exchange") == []


PLAIN = STATEMENT.partition(b"\r\n\r\n")[2]
JSON = ("Content-Type", "application/fhir+json")


async def leave(line: Line) -> None:
    """A good answer, and the end of the connection without a word."""
    line.seen.complete = True
    line.writer.write(STATEMENT)
    await line.writer.drain()
    await asyncio.sleep(0.5)
    line.writer.close()


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
async def test_any_statement_is_an_answer(
    start_service: StartService, platform: Platform, answer: answers.Answer
) -> None:
    """Compressed unasked, longer than is read, in XML, or on a connection that is given up."""
    platform.answer(answer)
    service = await start_service.ready(**CHECKED)
    await service.until_metric(3, "dhp_gateway_platform_probes_total")
    assert await service.metric("dhp_gateway_platform_probes_total", found="answers") >= 3
    assert (await told(service)).care == ("yes", "fine")


async def test_it_can_be_switched_off(start_service: StartService, platform: Platform) -> None:
    """With 0 only callers' requests reach the platform, and its health is unknown before."""
    service = await start_service.ready(admin={"probe_interval": 0})
    await asyncio.sleep(2.5)
    assert platform.seen == []
    assert (await told(service)).care == ("untried", "untried")


async def test_one_clinic_s_refused_secret_leaves_the_others_ready(
    start_service: StartService, sso: Sso
) -> None:
    """It is named as a limit, and all voices say that care goes on."""
    names = ("north", "south")
    sso.refuse("south")
    service = await start_service.ready(
        **CHECKED,
        credentials={name: {"client_id": name, "client_secret": "planted"} for name in names},
        callers=[
            {"name": name, "api_key": f"planted-key-{name}", "credential": name} for name in names
        ],
    )
    found = await until_told(service, "degraded", "token-refused")
    assert found.ready == 200
    assert set(found.usable.values()) == {1.0}
    _, body = await service.operators("/readyz")
    assert json.loads(body)["degraded"] == {"credentials": {"count": 1, "names": ["south"]}}


async def test_a_mended_address_begins_anew(
    start_service: StartService, platform: Platform
) -> None:
    """What was found at another address does not stick to the right one."""
    wrong = f"http://127.0.0.1:{free_port()}/fhir"
    service = await start_service.ready(**CHECKED, platform={"fhir_base_url": wrong})
    await until_told(service, "no", "platform-unreachable")
    service.change(admin={"probe_interval": 0}, platform={"fhir_base_url": platform.url})
    service.send(signal.SIGHUP)
    found = await until_told(service, "untried", "untried")
    assert found.usable == {"untried": 1.0}
    assert found.ready == 200
