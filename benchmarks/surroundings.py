"""The environment of the proxies: the platform in its several forms, the SSO, and their files."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme
from cryptography.hazmat.primitives.serialization import NoEncryption
from cryptography.hazmat.primitives.serialization.pkcs12 import (
    PKCS12Certificate,
    serialize_java_truststore,
)
from cryptography.x509 import load_pem_x509_certificate
from joserfc import jwt
from joserfc.jwk import RSAKey

from benchmarks.pages import SPELLINGS, document, documents, linked, searchset, spelled
from benchmarks.prerequisites import program
from benchmarks.processes import Pinned, free_port, running

HERE = Path(__file__).parent
KIB, MIB = 1024, 1024 * 1024
# A JWT as long as those of the national SSO. Only fhir-gateway looks into it, and at its issuer.
KEY = RSAKey.generate_key(2048)
SSO = free_port()
ISSUER = f"http://127.0.0.1:{SSO}/oauth/issuer"
TOKEN = jwt.encode({"alg": "RS256"}, {"iss": ISSUER, "scope": "x" * 305}, KEY)

READ = "/fhir/Patient/example"
PAGE = "/fhir/Observation?code=http%3A%2F%2Floinc.org%7C58410-2"
LINKED = "/fhir/Observation-"
DOCUMENT = "/fhir/DocumentReference/1"
DOCUMENTS = "/fhir/DocumentReference-500"
BUNDLE = "/fhir/Encounter?status=in-progress"
BINARY = "/fhir/Binary/report"
LARGE = 50 * MIB


@dataclass(frozen=True, slots=True)
class Upstream:
    """The platform as a proxy is configured with it; with `tls` its name is `localhost`.

    `token_path` is the path of the token endpoint at the SSO.
    """

    port: int
    sso_port: int
    tls: bool = False
    token_path: str = "/oauth/token"

    @property
    def origin(self) -> str:
        """Return scheme, host and port."""
        return f"http{'s' * self.tls}://127.0.0.1:{self.port}"

    @property
    def token_url(self) -> str:
        """Return the URL of the token endpoint."""
        return f"http://127.0.0.1:{self.sso_port}{self.token_path}"


@dataclass(slots=True)
class Surroundings:
    """The ports of all servers, and a directory for files.

    `files` responds to reads, over TLS too; `creates` responds to POST; `python` accepts any
    request, checks the expiry of tokens and is the SSO of all.
    """

    directory: Path
    files: int = field(default_factory=free_port)
    files_tls: int = field(default_factory=free_port)
    creates: int = field(default_factory=free_port)
    python: int = SSO

    def upstream(self, name: str) -> Upstream:
        """Return the upstream `files`, `tls`, `creates`, `python` or `rollover`.

        The tokens of `rollover` are valid for two seconds.
        """
        if name == "rollover":
            return Upstream(self.python, self.python, token_path="/oauth/short-lived")
        port = self.files_tls if name == "tls" else int(getattr(self, name))
        return Upstream(port, self.python, tls=name == "tls")

    def records(self, port: int) -> Path:
        """Return the file in which the proxy on `port` writes a line for each request."""
        return self.directory / f"{port}.log"

    def counts(self) -> dict[str, int]:
        """Return the counts so far.

        They are `tokens` issued by the SSO, `seen` by the platform, and requests `unauthorized`.
        """
        url = f"http://127.0.0.1:{self.python}/counts"
        with urllib.request.urlopen(url, timeout=5) as answer:
            counted: dict[str, int] = json.load(answer)
        return counted

    def fill_in(self, template: str, name: str, **values: object) -> Path:
        """Write a configuration file from a template beside this module, and return it."""
        text = (HERE / template).read_text()
        common = {"directory": self.directory, "sso_port": self.python, "token": TOKEN}
        for placeholder, value in {**common, **values}.items():
            text = text.replace(f"@{placeholder.upper()}@", str(value))
        file = self.directory / name
        file.write_text(text)
        return file

    def write_documents(self) -> None:
        """Write the documents of `files`, but for the large ones, and the keys of TLS."""
        self.write(READ, (HERE / "patient.json").read_bytes())
        self.write(PAGE, self._searchset(60 * KIB, PAGE))
        page = linked(55 * KIB, f"{self.upstream('files').origin}/fhir")
        for spelling in SPELLINGS:
            self.write(LINKED + spelling, spelled(page, spelling))
        authority = trustme.CA()
        trusted = PKCS12Certificate(load_pem_x509_certificate(authority.cert_pem.bytes()), b"ca")
        keys = serialize_java_truststore([trusted], NoEncryption())
        (self.directory / "ca.p12").write_bytes(keys)
        authority.cert_pem.write_to_path(str(self.directory / "ca.pem"))
        issued = authority.issue_cert("localhost", "127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(str(self.directory / "platform.pem"))

    def write_bundle(self) -> None:
        """Write the large Bundle."""
        self.write(BUNDLE, self._searchset(LARGE, BUNDLE))

    def write_document(self) -> None:
        """Write the large resource with a file in it."""
        self.write(DOCUMENT, document(LARGE))

    def write_document_bundle(self) -> None:
        """Write the large Bundle of resources with files in them."""
        self.write(DOCUMENTS, documents(LARGE, f"{self.upstream('files').origin}/fhir"))

    def write_binary(self) -> None:
        """Write the large Binary."""
        self.write(BINARY, os.urandom(LARGE))

    def _searchset(self, size: int, path: str) -> bytes:
        base = f"{self.upstream('files').origin}/fhir"
        return searchset(size, base, query=path.removeprefix("/fhir/"))

    def write(self, path: str, content: bytes) -> None:
        """Write a document of `files`; the query of its path is left out."""
        fhir = self.directory / "documents" / "fhir"
        file = fhir / path.removeprefix("/fhir/").partition("?")[0]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)

    def commands(self) -> dict[str, list[str | Path]]:
        """Return the commands that start the platform's programs."""
        files = self.fill_in(
            "nginx_upstream.conf", "upstream.conf", port=self.files, tls_port=self.files_tls
        )
        creates = self.fill_in(
            "haproxy_upstream.cfg", "upstream.cfg", port=self.creates, created=HERE / "patient.json"
        )
        return {
            "files": nginx_command(files, self.directory),
            "creates": haproxy_command(creates),
            "python": [
                sys.executable,
                HERE / "upstream.py",
                str(self.python),
                TOKEN,
                _public_key(),
            ],
        }


def _public_key() -> str:
    """Return the SSO's key as fhir-gateway reads it: SubjectPublicKeyInfo in base64."""
    return "".join(KEY.as_pem(private=False).decode().splitlines()[1:-1])


def nginx_command(configuration: Path, directory: Path) -> list[str | Path]:
    """Return the command of nginx: in the foreground, one process, files in `directory`."""
    return [program("nginx") or "nginx", "-p", directory, "-e", "stderr", "-c", configuration]


def haproxy_command(configuration: Path) -> list[str | Path]:
    """Return the command of haproxy in the foreground, as one process."""
    return [program("haproxy") or "haproxy", "-db", "-f", configuration]


@contextlib.contextmanager
def surroundings(core: int) -> Iterator[tuple[Surroundings, list[Pinned]]]:
    """Run the platform and the SSO on one core; yield their processes too."""
    with tempfile.TemporaryDirectory(prefix="bench-") as name, contextlib.ExitStack() as stack:
        around = Surroundings(Path(name))
        around.write_documents()
        own = {
            label: stack.enter_context(running(command, core, around.directory / f"{label}.err"))
            for label, command in around.commands().items()
        }
        for label, process in own.items():
            port = around.upstream(label).port
            process.until_answering(port, READ, headers={"Authorization": f"Bearer {TOKEN}"})
        yield around, list(own.values())
