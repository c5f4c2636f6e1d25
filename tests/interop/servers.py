"""Third-party FHIR servers, each as a process that can be killed and started again."""

from __future__ import annotations

import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import yaml

from tests.doubles.processes import Process, free_port, start
from tests.doubles.sections import gateway_settings
from tests.interop.stages import KeyFiles

HERE = Path(__file__).parent
# Of Java programs that do not run for long.
FASTER_START = (
    *("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
)


@dataclass(slots=True)
class FhirServer(ABC):
    """A server that takes every request: a proxy in front of it checks the tokens.

    `public` is the origin of that proxy, which its links must name (as configured, or as the Host
    of a request says). What it makes up must be UUIDs (or 16 hexadecimal digits), times, and
    numbers of versions: with two records of the same content all else has to be equal.
    """

    directory: Path
    public: str = ""
    port: int = field(default_factory=free_port)
    process: Process | None = None
    # Of the first start.
    seconds: float = 0.0

    # The column of the table.
    name: ClassVar[str]
    # The path of the FHIR base URL, without a slash at its end.
    base_path: ClassVar[str]
    # The release of FHIR.
    release: ClassVar[str]
    # Whether data outlasts a kill of the process.
    survives: ClassVar[bool]
    # Whether it is killed only once, but by night.
    starts_slowly: ClassVar[bool] = False
    # Why a row cannot be asked of this server, by the name of the row.
    not_offered: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def version(self) -> str:
        """Return the version that runs."""

    @abstractmethod
    def launch(self) -> Process:
        """Start the process at `port`, with the data that it had, and return it once it answers."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def base(self) -> str:
        return f"{self.origin}{self.base_path}"

    def start(self) -> None:
        begin = time.monotonic()
        self.process = self.launch()
        self.seconds = self.seconds or time.monotonic() - begin

    def end(self) -> None:
        """Kill the process."""
        if self.process is not None and not self.process.ended:
            self.process.popen.kill()
            self.process.popen.wait()


def locked(lock: str, package: str) -> str:
    """Return the version of a Python package that a lock file names."""
    found = re.search(rf"^{package}==(\S+)", (HERE / lock).read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


@dataclass(slots=True)
class Sekmet(FhirServer):
    """sekmet-fhir: R4 with exports, XML and a file of data.

    Its references are absolute, as Firely's are. With `keys` it is its own SSO for SMART Backend
    Services, and checks the tokens itself.
    """

    python: Path = Path()
    keys: KeyFiles | None = None

    name = "sekmet-fhir"
    release = "R4"
    base_path = "/fhir"
    survives = True
    not_offered = {"Binary as octets": "JSON and XML only"}  # noqa: RUF012

    def version(self) -> str:
        return locked("sekmet.lock", "sekmet-fhir")

    @property
    def token_url(self) -> str:
        return f"{self.origin}/auth/token"

    def _auth(self) -> dict[str, Any]:
        if self.keys is None:
            return {"types": ["none"]}
        clients = [{"client_id": "lab-ec", "jwks": self.keys.registered("lab-ec")}]
        return {"types": ["smart"], "smart_clients": clients, "token_lifetime": 300}

    def launch(self) -> Process:
        settings = {
            "base_url": f"{self.public or self.origin}{self.base_path}",
            "host": "127.0.0.1",
            "port": self.port,
            "data_dir": str(self.directory / "data"),
            "simulator": {"enabled": False},
            "log_inbound": False,
            "server_behaviour": {"absolute_references": True},
            "server_auth": self._auth(),
        }
        (self.directory / "data").mkdir(exist_ok=True)
        file = self.directory / "sekmet.yaml"
        file.write_text(yaml.safe_dump(settings))
        command = [str(self.python.with_name("sekmet")), "serve", "--config", str(file)]
        process = start(command, self.directory, name="sekmet")
        process.wait_until_listening(self.port)
        return process


@dataclass(slots=True)
class Fhirstarter(FhirServer):
    """fhirstarter's example server: R5 at the root, Patients in memory, without versions."""

    python: Path = Path()

    name = "fhirstarter"
    release = "R5"
    base_path = ""
    survives = False
    not_offered = {  # noqa: RUF012
        **dict.fromkeys(("preconditions: 304, 412", "vread and histories"), "has no versions"),
        **dict.fromkeys(("Binary as a resource", "Binary as octets"), "has Patients only"),
        **dict.fromkeys(("search, pages to the end", "bulk export"), "has Patients only"),
        "conditional writes": "has no conditions",
        "batch and transaction": "has no Bundles",
        "operations": "has no operations",
        "XML": "JSON only",
    }

    def version(self) -> str:
        return locked("fhirstarter.lock", "fhirstarter")

    def launch(self) -> Process:
        command = [str(self.python), "-m", "uvicorn", "--port", str(self.port), "--no-access-log"]
        application = "fhirstarter.examples.example:app"
        process = start([*command, application], self.directory, name="fhirstarter")
        process.wait_until_listening(self.port)
        return process


@dataclass(slots=True)
class Medplum(FhirServer):
    """Medplum's FHIR router on its repository in memory: R4, with the base two segments deep."""

    node: str = ""

    name = "Medplum's router"
    release = "R4"
    base_path = "/fhir/R4"
    survives = False
    not_offered = {"bulk export": "has no exports", "XML": "JSON only"}  # noqa: RUF012

    def version(self) -> str:
        dependencies = json.loads((HERE / "package.json").read_text())["dependencies"]
        return str(dependencies["@medplum/fhir-router"])

    def launch(self) -> Process:
        command = [self.node, str(HERE / "medplum_router.mjs"), str(self.port)]
        process = start(command, self.directory, name="medplum")
        process.wait_until_listening(self.port)
        return process


@dataclass(slots=True)
class Hapi(FhirServer):
    """HAPI FHIR's JPA server: R5 with versions, exports, XML, and H2 in a file.

    `package` has what Maven built of the folder `hapi`.
    """

    java: str = ""
    package: Path = Path()

    name = "HAPI FHIR"
    release = "R5"
    base_path = "/fhir"
    survives = True
    starts_slowly = True

    def version(self) -> str:
        found = re.search("<hapi.version>(.+)</", (HERE / "hapi" / "pom.xml").read_text())
        assert found is not None
        return found[1]

    def launch(self) -> Process:
        command = [self.java, *FASTER_START, "-Xmx640m", "-cp", str(self.package / "hapi-1.jar")]
        command += ["Server", str(self.port), str(self.directory)]
        process = start(command, self.directory, name="hapi")
        process.first_line()
        return process


def in_front_of(server: Sekmet, **changes: Any) -> dict[str, Any]:
    """Return settings of a gateway that uses `private_key_jwt` at the server's SSO."""
    assert server.keys is not None
    credential = {
        "client_id": "lab-ec",
        "auth_method": "private_key_jwt",
        "private_key_file": str(server.keys.path("lab-ec")),
    }
    credentials = {"default": credential}
    return gateway_settings(server.base, server.token_url, credentials=credentials, **changes)


async def token_of(token_url: str, client_id: str, secret: str) -> str:
    """Request a token from the SSO as a program without a gateway does, and return it."""
    form = {
        "grant_type": "client_credentials",
        "client_id": client_id,
        "client_secret": secret,
    }
    async with aiohttp.request("POST", token_url, data=form) as answer:
        told: Mapping[str, Any] = json.loads(await answer.text())
    return str(told["access_token"])
