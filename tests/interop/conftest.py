"""Third-party clients and servers: fetched once from lock files, run as real processes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from gateway.sandbox.options import SandboxOptions
from gateway.sandbox.server import Sandbox
from tests.doubles.processes import (
    GatewayProcess,
    Process,
    start,
    start_gateway,
)
from tests.doubles.recording_proxy import RecordingProxy
from tests.doubles.sections import gateway_settings
from tests.environments import (
    installed_program,
    maven_package,
    node_with_packages,
    python_with_packages,
)
from tests.interop.bearer_guard import BearerGuard
from tests.interop.oracle import Oracle
from tests.interop.servers import FASTER_START, FhirServer, Fhirstarter, Sekmet
from tests.interop.stages import (
    AUDIENCE,
    METHODS,
    SECRETS,
    Begin,
    FhirKit,
    GuardedStage,
    KeyFiles,
    SetStage,
    Sso,
    Stage,
    sandbox_settings,
)

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def node() -> str:
    """Return the node program, with the packages of package-lock.json beside the scripts."""
    return node_with_packages(HERE)


@pytest.fixture(scope="session")
def fhirstarter_python() -> Path:
    """Return the interpreter of fhirstarter's environment, made once from its lock."""
    return python_with_packages(HERE / "fhirstarter.lock")


@pytest.fixture(scope="session")
def sekmet_python() -> Path:
    """Return the interpreter of sekmet-fhir's environment, made once from its lock."""
    return python_with_packages(HERE / "sekmet.lock")


@pytest.fixture(scope="session")
def hapi() -> dict[str, Any]:
    """Return what HAPI's programs need to run: java, and the package, built once."""
    return {"java": installed_program("java"), "package": maven_package(HERE / "hapi")}


@pytest.fixture(scope="session")
def hapi_oracle(hapi: dict[str, Any]) -> Iterator[Oracle]:
    command = [hapi["java"], *FASTER_START, "-Xmx512m", "-cp", hapi["package"] / "hapi-1.jar"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, "Oracle"], stdin=pipe, stdout=pipe, text=True) as popen:
        yield Oracle(popen)


@pytest.fixture(scope="session")
def clients_python() -> Path:
    """Return the interpreter of a separate environment, for clients with conflicting versions."""
    return python_with_packages(HERE / "clients.lock")


@contextlib.contextmanager
def _ended(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.terminate()


@contextlib.contextmanager
def _running(server: FhirServer) -> Iterator[FhirServer]:
    try:
        server.start()
        yield server
    finally:
        server.end()


@pytest.fixture(scope="session")
def fhirstarter(
    fhirstarter_python: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Yield the URL of fhirstarter's example server: R5 at the root, no tokens required."""
    directory = tmp_path_factory.mktemp("fhirstarter")
    with _running(Fhirstarter(directory, python=fhirstarter_python)) as server:
        yield server.origin


@pytest.fixture
def sekmet(sekmet_python: Path, tmp_path: Path) -> Iterator[Sekmet]:
    """Yield an empty sekmet-fhir that checks tokens of its own SSO."""
    server = Sekmet(tmp_path, python=sekmet_python, keys=KeyFiles(tmp_path))
    with _running(server):
        yield server


@pytest.fixture(scope="session")
def start_sso(node: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Sso]]:
    """Yield a function that starts oidc-provider with a token lifetime in seconds.

    `user_clients` are additional clients for the sign-in of users.
    """
    keys = KeyFiles(tmp_path_factory.mktemp("client-keys"))
    with contextlib.ExitStack() as running:

        def begin(lifetime: int, user_clients: Sequence[dict[str, str]] = ()) -> Sso:
            clients = [
                {"id": name, "authMethod": METHODS[name]}
                | (
                    {"secret": SECRETS[name]}
                    if name in SECRETS
                    else {"jwks": keys.registered(name)}
                )
                for name in METHODS
            ]
            clients += user_clients
            settings = {"clients": clients, "audience": AUDIENCE, "lifetime": lifetime}
            script = HERE / "oidc_provider.mjs"
            directory = tmp_path_factory.mktemp("oidc-provider")
            process = start([node, script, json.dumps(settings)], directory)
            running.enter_context(_ended(process))
            urls = json.loads(process.first_line())
            return Sso(urls["issuer"], urls["tokenUrl"], urls["jwksUrl"], keys)

        yield begin


@pytest.fixture(scope="session")
def sso(start_sso: Callable[..., Sso]) -> Sso:
    """Return the oidc-provider that most tests share; its tokens outlast every test."""
    return start_sso(3600)


@pytest.fixture
def begin_gateway(tmp_path: Path) -> Iterator[Begin]:
    """Yield a function that starts gateways as processes, which end after the test."""
    with contextlib.ExitStack() as running:

        def begin(settings: dict[str, Any]) -> GatewayProcess:
            gateway = start_gateway(settings, tmp_path)
            running.enter_context(_ended(gateway.process))
            return gateway

        yield begin


@pytest.fixture
def set_stage(fhirstarter: str, begin_gateway: Begin) -> SetStage:
    """Return a function that puts fhirstarter behind a bearer check, with oidc-provider."""

    @contextlib.asynccontextmanager
    async def set_up(sso: Sso, client_id: str) -> AsyncIterator[GuardedStage]:
        guard = BearerGuard(await _fetch_json(sso.jwks_url), sso.issuer, AUDIENCE)
        token_path = sso.token_url.removeprefix(sso.issuer)
        async with (
            RecordingProxy(fhirstarter, guard).running() as platform,
            RecordingProxy(sso.issuer).running() as token_endpoint,
        ):
            credentials = {"default": sso.credential(client_id)}
            token_url = token_endpoint.url + token_path
            settings = gateway_settings(platform.url, token_url, credentials=credentials)
            yield GuardedStage(platform, token_endpoint, settings, begin_gateway, guard)

    return set_up


@pytest.fixture
async def stage(set_stage: SetStage, sso: Sso) -> AsyncIterator[GuardedStage]:
    """Yield fhirstarter, oidc-provider and a `client_secret_post` client."""
    async with set_stage(sso, "lab-post") as stage:
        yield stage


@pytest.fixture
async def sandbox_stage(begin_gateway: Begin) -> AsyncIterator[Stage]:
    """Yield an embedded platform in this process; its links name the recording proxy before it."""
    async with (
        RecordingProxy().running() as platform,
        RecordingProxy().running() as token_endpoint,
    ):
        embedded = Sandbox(SandboxOptions(port=0, public_url=f"{platform.url}/fhir"))
        await embedded.start()
        try:
            origin = embedded.fhir_base_url.removesuffix("/fhir")
            platform.upstream = token_endpoint.upstream = origin
            settings = sandbox_settings(platform.url, token_endpoint.url)
            yield Stage(platform, token_endpoint, settings, begin_gateway)
        finally:
            await embedded.stop()


@pytest.fixture
def fhir_kit(node: str) -> FhirKit:
    """Call fhir-kit-client: `await fhir_kit(base_url, "read", resourceType=…, id=…)`."""

    async def call(base_url: str, call: str, **parameters: Any) -> dict[str, Any]:
        order = json.dumps({"baseUrl": base_url, "call": call, "parameters": parameters})
        script = str(HERE / "fhir_kit_client.mjs")
        process = await asyncio.create_subprocess_exec(
            node, script, order, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        stdout, stderr = await process.communicate()
        assert process.returncode == 0, stderr.decode()
        result: dict[str, Any] = json.loads(stdout)
        return result

    return call


async def _fetch_json(url: str) -> Any:
    async with aiohttp.request("GET", url) as answer:
        return await answer.json()
