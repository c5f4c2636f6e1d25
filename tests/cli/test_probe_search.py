"""The command `dhp-gateway probe-search` with a platform that ignores some parameters."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from gateway.config.settings import PRESETS
from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.cli.test_main import custom, write
from tests.doubles import sso as answers
from tests.doubles.command import Result, dhp
from tests.doubles.platform import Platform, PlatformConnection, fhir, outcome, read_body
from tests.doubles.processes import GATEWAY_COMMAND
from tests.doubles.sso import Sso

NAME = "Karimov"
DECLARED = {
    "Observation": {"date": "date", "code": "token", "subject": "reference", "_id": "token"},
    "Organization": {"name": "string", "partof": "reference", "_count": "number"},
    "PlanDefinition": {"context-type-value": "composite", "url": "uri", "near": "special"},
    "RiskAssessment": {"probability": "number", "method": "token"},
    "Specimen": {"collected": "date", "volume": "quantity"},
}
UNFILTERED = {
    ("Observation", "date"),
    ("Organization", "partof"),
    ("PlanDefinition", "context-type-value"),
}
FOUND = """\
fhir:
  unfiltered:
    Observation: [date]
    Organization: [partof]
    PlanDefinition: [context-type-value]
"""


class FilteringPlatform:
    """Has one resource of each type but those in `empty`, and repeats every parameter in `self`."""

    def __init__(self, *, empty: tuple[str, ...] = ()) -> None:
        self._empty = empty
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.at: list[float] = []

    async def respond(self, connection: PlatformConnection) -> None:
        await read_body(connection.reader, connection.request)
        address = urlsplit(connection.request.target)
        kind, query = address.path.rpartition("/")[2], dict(parse_qsl(address.query))
        self.at.append(asyncio.get_running_loop().time())
        if kind == "metadata":
            connection.writer.write(fhir(statement()))
            return
        self.asked.append((kind, query))
        connection.writer.write(fhir(self._found(kind, query, address.query)))

    def _found(self, kind: str, query: dict[str, str], raw: str) -> bytes:
        names = query.keys() - {"_count"}
        filtered = any((kind, name) not in UNFILTERED for name in names)
        entries = [] if filtered or kind in self._empty else [{"resource": resource(kind)}]
        if filtered:
            # That there is none is said with an entry, too.
            outcome_ = {"resourceType": "OperationOutcome", "issue": [{"code": "not-found"}]}
            entries = [{"resource": outcome_, "search": {"mode": "outcome"}}]
        link = {"relation": "self", "url": f"http://p/r5/{kind}?{raw}"}
        bundle = {"resourceType": "Bundle", "type": "searchset", "total": 0, "link": [link]}
        return json.dumps({**bundle, "entry": entries}).encode()


def resource(kind: str) -> dict[str, Any]:
    return {"resourceType": kind, "id": "1", "text": {"div": f"<div>{NAME}</div>"}}


def statement() -> bytes:
    resources = [
        {"type": kind, "searchParam": [{"name": n, "type": t} for n, t in parameters.items()]}
        for kind, parameters in DECLARED.items()
    ]
    rest = [{"mode": "server", "resource": resources}]
    return json.dumps({"resourceType": "CapabilityStatement", "rest": rest}).encode()


class ProbeSetup:
    """A platform, an SSO and the settings."""

    def __init__(self, platform: Platform, sso: Sso, directory: Path) -> None:
        self.platform, self.sso, self.directory = platform, sso, directory
        self.settings = {**custom(sso), "platform": {"fhir_base_url": platform.url}}

    async def probe(self, *arguments: str, rate: str = "100") -> Result:
        config = write(self.directory, self.settings)
        return await dhp("probe-search", *arguments, "--rate", rate, "--config", config)


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[ProbeSetup]:
    async with Platform() as platform, Sso() as sso:
        yield ProbeSetup(platform, sso, tmp_path)


async def test_parameters_that_filter_nothing_are_printed_as_settings(setup: ProbeSetup) -> None:
    filtering = FilteringPlatform()
    setup.platform.respond(filtering.respond)
    result = await setup.probe()
    assert (result.code, result.out) == (0, FOUND)
    assert "12 search parameters tested, 3 filter nothing" in result.err
    assert NAME not in result.out + result.err
    setup.settings["fhir"] = yaml.safe_load(result.out)["fhir"]
    assert (await dhp("check", "--config", write(setup.directory, setup.settings))).code == 0
    # What is about the answer is not asked for, and no kind of which nothing can be known.
    assert {query["_count"] for _, query in filtering.asked} == {"1"}
    assert "near" not in {name for _, query in filtering.asked for name in query}
    assert "PlanDefinition?near" in result.err


async def test_each_parameter_type_gets_a_valid_value(setup: ProbeSetup) -> None:
    filtering = FilteringPlatform()
    setup.platform.respond(filtering.respond)
    await setup.probe()
    values = {name: value for _, query in filtering.asked for name, value in query.items()}
    assert values["date"] == "1800-01-01"
    assert float(values["probability"]) < 0
    assert values["url"].startswith("urn:uuid:")
    assert values["context-type-value"].count("$") == 1
    assert len(values["code"]) == 36


@pytest.mark.parametrize(
    ("arguments", "out", "asked"),
    [
        (("Observation?date",), "fhir:\n  unfiltered:\n    Observation: [date]\n", 2),
        (("Observation?code", "Specimen"), "fhir:\n  unfiltered: {}\n", 5),
        (("Observation?patient.identifier",), "fhir:\n  unfiltered: {}\n", 2),
    ],
)
async def test_named_types_and_parameters_alone_are_probed(
    setup: ProbeSetup, arguments: tuple[str, ...], out: str, asked: int
) -> None:
    filtering = FilteringPlatform()
    setup.platform.respond(filtering.respond)
    result = await setup.probe(*arguments)
    assert (result.code, result.out) == (0, out)
    assert "leave the others" in result.err
    assert len(filtering.asked) == asked


async def test_types_without_resources_are_not_probed(setup: ProbeSetup) -> None:
    filtering = FilteringPlatform(empty=("Observation",))
    setup.platform.respond(filtering.respond)
    result = await setup.probe("Observation")
    # Nothing was tested, so this is no success.
    assert (result.code, result.out) == (1, "fhir:\n  unfiltered: {}\n")
    assert "Observation?date" in result.err
    assert "there is none of that type" in result.err
    assert len(filtering.asked) == 1


async def test_requests_keep_to_the_rate(setup: ProbeSetup) -> None:
    """Single ones may arrive late on a busy machine, but the last only after all intervals."""
    filtering = FilteringPlatform()
    setup.platform.respond(filtering.respond)
    await setup.probe("Observation", rate="10")
    statement_asked, *searches = filtering.at
    assert len(searches) == 5
    assert searches[-1] - statement_asked > 0.39


async def test_429_is_waited_for_and_a_rejected_token_replaced(setup: ProbeSetup) -> None:
    filtering = FilteringPlatform()
    busy, refused = outcome(429, ("Retry-After", "1")), outcome(401)
    setup.platform.script(fhir(statement()), busy, refused)
    setup.platform.respond(filtering.respond)
    result = await setup.probe("Observation?date")
    assert (result.code, "Observation: [date]" in result.out) == (0, True)
    assert len(setup.sso.requests) == 2


@pytest.mark.parametrize("status", [500, 403])
async def test_a_failed_probe_is_reported(setup: ProbeSetup, status: int) -> None:
    matches = FilteringPlatform()._found("Observation", {}, "")
    setup.platform.script(fhir(statement()), fhir(matches), outcome(status))
    setup.platform.respond(outcome(400))
    result = await setup.probe("Observation?date", "Observation?code")
    assert (result.code, result.out) == (1, "fhir:\n  unfiltered: {}\n")
    assert "Observation?date: the platform did not answer" in result.err


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("observation",), 2, "not a resource type"),
        (("Observation?",), 2, "the name of a parameter"),
        (("Observation?code=1",), 2, "without a value"),
        (("--credential", "other"), 2, "there is no credential 'other'"),
        ((), 1, "no CapabilityStatement (status 200)"),
    ],
)
async def test_invalid_arguments_are_reported(
    setup: ProbeSetup, arguments: tuple[str, ...], code: int, words: str
) -> None:
    result = await setup.probe(*arguments)
    assert (result.code, words in result.err, result.out) == (code, True, ""), result.err


async def test_without_a_token_nothing_is_probed(setup: ProbeSetup) -> None:
    setup.sso.respond(answers.oauth_error("invalid_client", 401))
    result = await setup.probe()
    assert (result.code, "no token: " in result.err) == (1, True)
    assert setup.platform.requests == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_an_interrupted_run_leaves_nothing_behind(
    setup: ProbeSetup, number: signal.Signals
) -> None:
    setup.platform.respond(FilteringPlatform().respond)
    config = write(setup.directory, setup.settings)
    before = sorted(setup.directory.iterdir())
    # What a shell starts in the background, with all below it, is deaf to the first of them.
    hearing = ("env", "--default-signal=INT")
    process = await asyncio.create_subprocess_exec(
        *(*hearing, GATEWAY_COMMAND, "probe-search", "--rate", "2", "--config", config),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=setup.directory,
    )
    await setup.platform.wait_for_requests(3)
    process.send_signal(number)
    out, err = (text.decode() for text in await process.communicate())
    assert (process.returncode, out) == (1, "")
    assert "interrupted; nothing was stored" in err
    assert "Traceback" not in err
    assert sorted(setup.directory.iterdir()) == before
    while setup.platform.open_connections:  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)


async def test_the_unfiltered_parameters_of_the_sandbox_are_found(setup: ProbeSetup) -> None:
    options = SandboxOptions(port=0)
    sandbox = Sandbox(options)
    await sandbox.start()
    setup.settings["platform"] = {"fhir_base_url": sandbox.fhir_base_url}
    setup.settings["sso"] = {"token_url": sandbox.token_url}
    client = {"client_id": options.client_id, "client_secret": options.client_secret}
    setup.settings["credentials"] = {"default": client}
    result = await setup.probe()
    await sandbox.stop()
    found = yaml.safe_load(result.out)["fhir"]["unfiltered"]
    listed = PRESETS["dhp-playground"]["fhir"]["unfiltered"]
    assert {kind: sorted(names) for kind, names in found.items()} == {
        kind: sorted(names) for kind, names in listed.items()
    }
