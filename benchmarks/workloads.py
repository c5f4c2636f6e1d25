"""The workloads: what is asked of the proxies, and who takes part."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks import surroundings as around
from benchmarks.bulk import Bulk
from benchmarks.closed_loop import ClosedLoop
from benchmarks.open_loop import OpenLoop
from benchmarks.pages import observation, transaction
from benchmarks.surroundings import LARGE
from benchmarks.watching import Figures

FAST = ("gateway", "envoy", "nginx", "haproxy")
ALL = (*FAST, "usual")


class Load(Protocol):
    """Something that asks a proxy for `seconds` and measures."""

    def run(self, port: int, seconds: float) -> Figures:
        """The figures, with `count` for how many there were of what CPU time is given for."""


@dataclass(frozen=True, slots=True)
class Workload:
    """One way to use a proxy. `unit` is what is counted; `seconds` multiplies those of the options.

    `load` is given a directory for files and the gateway's port, as callers know it. With `direct`
    the platform itself is measured too, with `growth` how much memory the proxies take meanwhile.
    """

    name: str
    title: str
    load: Callable[[Path, int], Load]
    upstream: str = "files"
    contenders: Sequence[str] = ALL
    unit: str = "request"
    seconds: float = 1
    direct: bool = False
    growth: bool = False


def _read(connections: int, *fields: str, path: str = around.READ) -> Callable[[Path, int], Load]:
    return lambda directory, port: ClosedLoop(path, connections, fields)


def _create(directory: Path, port: int) -> Load:
    body = directory / "create.json"
    body.write_bytes(observation(3000))
    return ClosedLoop("/fhir/Observation", 32, body=body)


def _upload_bundle(directory: Path, port: int) -> Load:
    body = transaction(LARGE, f"http://127.0.0.1:{port}/fhir")
    return Bulk("/fhir", LARGE, body=body)


def _upload_binary(directory: Path, port: int) -> Load:
    return Bulk("/fhir/Binary", LARGE, kind="application/pdf", body=bytes(LARGE))


WORKLOADS = (
    Workload("small-1", "read of 1.7 kB, 1 connection", _read(1)),
    Workload(
        "small-32",
        "read of 1.7 kB, 32 connections",
        _read(32),
        contenders=(*ALL, "gateway-unaudited"),
    ),
    Workload("small-256", "read of 1.7 kB, 256 connections", _read(256), contenders=FAST),
    Workload("create", "create of 3 kB, 32 connections", _create, upstream="creates"),
    Workload(
        "page",
        "search page of 60 kB, 32 connections; the gateway rewrites its links",
        _read(32, path=around.PAGE),
    ),
    Workload("tls", "read of 1.7 kB, 32 connections, TLS to the platform", _read(32), "tls"),
    Workload(
        "connect",
        "read of 1.7 kB, a new connection for each, 32 at once",
        _read(32, "Connection: close"),
    ),
    Workload(
        "bundle-down",
        "Bundle of 50 MiB from the platform; the gateway rewrites its links",
        lambda directory, port: Bulk(around.BUNDLE, LARGE),
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
        "binary-down",
        "Binary of 50 MiB from the platform",
        lambda directory, port: Bulk(around.BINARY, LARGE),
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
        lambda directory, port: OpenLoop(around.READ, 500),
        seconds=2,
        direct=True,
    ),
)
