"""The workloads: the requests to the proxies, and the contenders of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks import footprint
from benchmarks.bulk import Bulk
from benchmarks.closed_loop import ClosedLoop
from benchmarks.open_loop import OpenLoop, Request
from benchmarks.pages import SPELLINGS, document, observation, transaction
from benchmarks.rounds import Bench, Entry, Samples
from benchmarks.simulated_tokens import token_requests
from benchmarks.surroundings import (
    BINARY,
    BUNDLE,
    DOCUMENT,
    DOCUMENTS,
    HERE,
    LARGE,
    LINKED,
    PAGE,
    READ,
    Surroundings,
)
from benchmarks.watching import Figures, Load

FAST = ("gateway", "envoy", "nginx", "haproxy")
ALL = (*FAST, "usual")
PEERS = ("caddy", "oauth2-proxy", "fhir-gateway")
SHORT_LIVED = ", tokens of 2 s"

LoadOf = Callable[[Surroundings, int], Load]


@dataclass(frozen=True, slots=True)
class Workload:
    """One way to use a proxy. `unit` is what is counted; `seconds` multiplies those of the options.

    `load` makes the load; its second argument is the gateway's port, as callers know it. `measure`
    replaces it where proxies are not measured in rounds under load. `also` has further upstreams
    that each contender is measured with, by the suffix of its name. With `direct` the platform
    itself is measured too, with `growth` the growth of the proxies' memory. `ahead` lets proxies,
    platform and load generator run before the machine's other programs, if that is permitted: for
    loads that leave the cores idle most of the time, and measure the delay of one request in a
    thousand.
    """

    name: str
    title: str
    load: LoadOf | None = None
    upstream: str = "files"
    contenders: Sequence[str] = ALL
    unit: str = "request"
    seconds: float = 1
    direct: bool = False
    growth: bool = False
    ahead: bool = False
    also: Mapping[str, str] = field(default_factory=dict)
    measure: Callable[[Bench, Sequence[Entry]], Samples] | None = None


@dataclass(frozen=True, slots=True)
class LookingAtTokens:
    """Another load, and the counts of the platform meanwhile: tokens seen, and requests refused.

    The tokens issued by the SSO are a worse measure: contenders without load renew theirs too.
    """

    load: Load
    around: Surroundings

    def run(self, port: int, seconds: float) -> Figures:
        """Return the figures of the other load, with those of the platform."""
        before = self.around.counts()
        figures = self.load.run(port, seconds)
        after = self.around.counts()
        figures["new_tokens"] = after["seen"] - before["seen"]
        figures["refused"] = after["unauthorized"] - before["unauthorized"]
        return figures


def _read(connections: int, *fields: str, path: str = READ) -> LoadOf:
    return lambda around, port: ClosedLoop(path, connections, fields)


def _create(around: Surroundings, port: int) -> Load:
    body = around.directory / "create.json"
    body.write_bytes(observation(3000))
    return ClosedLoop("/fhir/Observation", 32, body=body)


def _asynchronous_update(around: Surroundings, port: int) -> Load:
    fields = ("Prefer: respond-async",)
    return ClosedLoop(READ, 32, fields, body=HERE / "patient.json", method="PUT")


def _download_bundle(around: Surroundings, port: int) -> Load:
    around.write_bundle()
    return Bulk(BUNDLE, LARGE)


def _download_document(around: Surroundings, port: int) -> Load:
    around.write_document()
    return Bulk(DOCUMENT, LARGE)


def _download_documents(around: Surroundings, port: int) -> Load:
    around.write_document_bundle()
    return Bulk(DOCUMENTS, LARGE)


def _upload_document(around: Surroundings, port: int) -> Load:
    return Bulk("/fhir/DocumentReference", LARGE, body=document(LARGE))


def _download_binary(around: Surroundings, port: int) -> Load:
    around.write_binary()
    return Bulk(BINARY, LARGE)


def _upload_bundle(around: Surroundings, port: int) -> Load:
    body = transaction(LARGE, f"http://127.0.0.1:{port}/fhir")
    return Bulk("/fhir", LARGE, body=body)


def _upload_binary(around: Surroundings, port: int) -> Load:
    return Bulk("/fhir/Binary", LARGE, kind="application/pdf", body=bytes(LARGE))


def _simulated(bench: Bench, entries: Sequence[Entry]) -> Samples:
    return {
        f"{rate} requests/s, tokens of {lifetime} s": [token_requests(rate, lifetime)]
        for rate, lifetime in ((500, 300), (10, 300), (500, 3600), (500, 2))
    }


WORKLOADS = (
    Workload("small-1", "read of 1.7 kB, 1 connection", _read(1)),
    Workload(
        "small-32",
        "read of 1.7 kB, 32 connections",
        _read(32),
        contenders=(*ALL, *PEERS, "gateway-unaudited", "gateway-file"),
    ),
    Workload("small-256", "read of 1.7 kB, 256 connections", _read(256), contenders=FAST),
    Workload(
        "create",
        "create of 3 kB, 32 connections",
        _create,
        upstream="creates",
        contenders=(*ALL, *PEERS),
    ),
    Workload(
        "outbox",
        "update of 1.7 kB that the outbox would keep if the line were down, 32 connections",
        _asynchronous_update,
        upstream="creates",
        contenders=("gateway", "gateway-outbox"),
    ),
    Workload(
        "page",
        "search page of 60 kB, 32 connections; the gateway and fhir-gateway rewrite its links",
        _read(32, path=PAGE),
        contenders=(*ALL, *PEERS),
    ),
    *(
        Workload(
            f"page-{spelling}",
            f"search page of 55 kB and more with 280 links, 32 connections; spelled: {spelling}",
            _read(32, path=LINKED + spelling),
            contenders=("gateway", "nginx-filter", "envoy"),
        )
        for spelling in SPELLINGS
    ),
    Workload(
        "tls",
        "read of 1.7 kB, 32 connections, TLS to the platform",
        _read(32),
        upstream="tls",
        contenders=(*ALL, *PEERS, "ghostunnel"),
    ),
    Workload(
        "connect",
        "read of 1.7 kB, a new connection for each, 32 at once",
        _read(32, "Connection: close"),
    ),
    Workload(
        "bundle-down",
        "Bundle of 50 MiB from the platform; the gateway rewrites its links",
        _download_bundle,
        contenders=FAST,
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "bundle-up",
        "Bundle of 50 MiB to the platform; the gateway rewrites its links",
        _upload_bundle,
        upstream="python",
        contenders=FAST,
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "document-down",
        "FHIR JSON of 50 MiB with a file in it from the platform",
        _download_document,
        contenders=("gateway", "nginx", "nginx-filter", "envoy"),
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "documents-down",
        "Bundle of 50 MiB with 500 files and 1,000 links in it from the platform",
        _download_documents,
        contenders=("gateway", "nginx", "nginx-filter", "envoy"),
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "document-up",
        "FHIR JSON of 50 MiB with a file in it to the platform",
        _upload_document,
        upstream="python",
        contenders=("gateway", "nginx", "envoy"),
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "binary-down",
        "Binary of 50 MiB from the platform",
        _download_binary,
        contenders=FAST,
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "binary-up",
        "Binary of 50 MiB to the platform",
        _upload_binary,
        upstream="python",
        contenders=FAST,
        unit="MiB",
        seconds=0.5,
        growth=True,
    ),
    Workload(
        "steady",
        "500 requests/s, each when it is due: latency and what the proxy adds to it",
        lambda around, port: OpenLoop([Request(READ)], 500),
        seconds=2,
        direct=True,
        ahead=True,
    ),
    Workload(
        "rollover",
        "500 requests/s while tokens live an hour, and while they live 2 s",
        lambda around, port: LookingAtTokens(OpenLoop([Request(READ)], 500), around),
        upstream="python",
        also={SHORT_LIVED: "rollover"},
        contenders=("gateway", "envoy"),
        seconds=5,
        ahead=True,
    ),
    Workload(
        "tokens",
        "token requests while a million requests pass, with the gateway's own life of a token and "
        "a simulated clock",
        measure=_simulated,
        contenders=("gateway",),
    ),
    Workload(
        "start",
        "from the start to the first forwarded request",
        contenders=(*ALL, *PEERS, "ghostunnel"),
        measure=footprint.starts,
    ),
    Workload(
        "memory",
        "memory after the first request, and with 1,000 idle connections",
        contenders=(*ALL, *PEERS, "ghostunnel"),
        measure=footprint.memory,
    ),
)
