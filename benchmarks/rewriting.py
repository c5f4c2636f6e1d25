"""The cost of URL rewriting, beside plain forwarding and beside parsing the JSON.

    .venv/bin/python -m benchmarks.rewriting [--rounds 20]

Three measurements. First what a page of 55 kB with 280 links takes in each of its spellings, and
bodies that are signed, streamed, or XML, in this process and beside `json.loads` + `json.dumps` of
the same body. Then, on searchset pages of three sizes with about one URL in each kilobyte:

* the rewriter alone, in this process, fed with 64 KiB at a time as from a socket, beside
  `json.loads` + `json.dumps` (which would change decimals) of the same page; also where all
  references are absolute;
* two gateway processes in front of one platform, one of them with `rewrite.enabled: false`: the CPU
  time and the time for a page, the best of the rounds, and the process's largest memory.

The gateways run on one core, the platform and the reader on another.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import SPELLINGS, linked, linked_xml, searchset, signed, spelled, transaction
from benchmarks.processes import Pinned, free_port, running
from gateway.fhir.links.link_map import LinkMap
from gateway.fhir.links.rewriting import Direction, rewriter_for

HERE = Path(__file__).parent
KIB, MIB = 1024, 1024 * 1024
PIECE = 64 * KIB
SIZES = {"14 KiB page": 14 * KIB, "1 MiB page": MIB, "50 MiB Bundle": 50 * MIB}


def best(action: Callable[[], object], rounds: int) -> float:
    """Return the shortest time in seconds that the action takes."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return min(times)


def rewrite(page: bytes, links: LinkMap, direction: Direction = "to-gateway") -> int:
    """Rewrite the page in chunks of a stream and return its new length."""
    kind = "application/fhir+xml" if page.startswith(b"<") else "application/fhir+json"
    rewriter = rewriter_for(kind, links, direction)
    length = sum(len(rewriter.feed(page[at : at + PIECE])) for at in range(0, len(page), PIECE))
    return length + len(rewriter.finish())


def reserialise(page: bytes) -> bytes:
    """Parse and serialise the page, as a simple gateway would rewrite it."""
    return json.dumps(json.loads(page), ensure_ascii=False, separators=(",", ":")).encode()


def bodies(links: LinkMap) -> Iterator[tuple[str, bytes, Direction]]:
    """Return the bodies to rewrite: name, body and direction."""
    base = links.platform.text
    page = linked(55 * KIB, base)
    for spelling in SPELLINGS:
        yield spelling, spelled(page, spelling), "to-gateway"
    yield "few links", searchset(55 * KIB, base), "to-gateway"
    yield "signed", signed(page), "to-gateway"
    for spelling in ("compact", "python", "turned", "indented"):
        yield f"streamed, {spelling}", spelled(linked(MIB, base), spelling), "to-gateway"
    sent = transaction(MIB, links.gateway.text)
    for spelling in ("compact", "python", "turned", "indented"):
        yield f"transaction, {spelling}", spelled(sent, spelling), "to-platform"
    yield "XML", linked_xml(55 * KIB, base), "to-gateway"


def in_every_spelling(rounds: int) -> Iterator[str]:
    """Return the lines of the first table; for XML the columns of JSON are empty."""
    links = LinkMap("https://playground.dhp.uz/fhir", "http://gateway.clinic.uz:8080/fhir")
    yield f"{'spelling':24}{'kB':>8}{'rewriting':>14}{'json':>14}{'rewriting/json':>16}"
    for name, body, direction in bodies(links):
        repeats = max(3, rounds * 100 * KIB // len(body))
        ours = best(lambda: rewrite(body, links, direction), repeats)  # noqa: B023
        line = f"{name:24}{len(body) / 1e3:8.0f}{ours * 1e3:11.3f} ms"
        if not body.startswith(b"<"):
            theirs = best(lambda: reserialise(body), repeats)  # noqa: B023
            line += f"{theirs * 1e3:11.3f} ms{ours / theirs:15.2f}x"
        yield line


def in_process(rounds: int) -> Iterator[str]:
    """Return the lines of the second table."""
    base = "https://playground.dhp.uz/fhir"
    links = LinkMap(base, "http://gateway.clinic.uz:8080/fhir")
    yield f"{'in one process':16}{'rewriting':>14}{'json':>14}{'json/rewriting':>16}"
    pages = {name: searchset(size, base) for name, size in SIZES.items()}
    pages["1 MiB, dense"] = searchset(MIB, base, dense=True)
    for name, page in pages.items():
        repeats = max(1, min(rounds * 10, 20 * MIB * rounds // len(page) // 20))
        ours = best(lambda page=page: rewrite(page, links), repeats)  # type: ignore[misc]
        theirs = best(lambda page=page: reserialise(page), repeats)  # type: ignore[misc]
        yield f"{name:16}{ours * 1e3:11.3f} ms{theirs * 1e3:11.3f} ms{theirs / ours:15.2f}x"


@dataclass(slots=True)
class Gateway:
    """A running gateway, and the cost of its pages."""

    process: Pinned
    port: int

    def fetch(self, size: int) -> tuple[float, int]:
        """Read one page on a new connection. Return its seconds and its length."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        begin = time.perf_counter()
        connection.request("GET", f"/fhir/page/{size}")
        answer = connection.getresponse()
        length = 0
        while piece := answer.read(PIECE):
            length += len(piece)
        seconds = time.perf_counter() - begin
        connection.close()
        assert answer.status == 200
        return seconds, length

    def cpu(self, size: int, times: int) -> tuple[float, float]:
        """Return the CPU seconds for one page, and the shortest time for one."""
        before = self._cpu_seconds()
        shortest = min(self.fetch(size)[0] for _ in range(times))
        return (self._cpu_seconds() - before) / times, shortest

    def peak(self) -> float:
        """Return the most memory that the process ever had, in MiB."""
        status = Path(f"/proc/{self.process.popen.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", status)
        assert found is not None
        return int(found[1]) / 1024

    def _cpu_seconds(self) -> float:
        # In nanoseconds: `stat` counts ticks of ten milliseconds.
        path = Path(f"/proc/{self.process.popen.pid}/schedstat")
        return int(path.read_text().split()[0]) / 1e9


def settings(port: int, platform: str, sso: int, *, enabled: bool) -> str:
    """Return a gateway's settings as JSON, which is valid YAML."""
    return json.dumps(
        {
            "environment": "custom",
            "listen": {"address": f"127.0.0.1:{port}"},
            "admin": {"address": f"127.0.0.1:{free_port()}"},
            "platform": {"fhir_base_url": platform},
            "sso": {"token_url": f"http://127.0.0.1:{sso}/oauth/token"},
            "credentials": {"default": {"client_id": "bench", "client_secret": "bench"}},
            "rewrite": {"enabled": enabled},
        }
    )


@contextlib.contextmanager
def gateways(directory: Path, cores: tuple[int, int]) -> Iterator[tuple[Gateway, Gateway]]:
    """Yield a gateway that rewrites and one that only forwards, in front of the same platform."""
    core, other = cores
    pages, sso = free_port(), free_port()
    platform = f"http://127.0.0.1:{pages}/fhir"
    sizes = [str(size) for size in SIZES.values()]
    with contextlib.ExitStack() as stack:

        def begin(name: str, command: list[str | Path], core: int) -> Pinned:
            return stack.enter_context(running(command, core, directory / f"{name}.err"))

        begin("sso", [sys.executable, HERE / "tiny_sso.py", str(sso), "token"], other)
        source = begin(
            "pages", [sys.executable, HERE / "pages.py", str(pages), platform, *sizes], other
        )
        source.until_answering(pages, f"/fhir/page/{sizes[0]}")
        started = []
        for enabled in (True, False):
            port = free_port()
            file = directory / f"rewriting-{enabled}.yaml"
            file.write_text(settings(port, platform, sso, enabled=enabled))
            program = Path(sys.executable).with_name("dhp-gateway")
            process = begin(file.stem, [program, "run", "--config", file], core)
            process.until_answering(port, f"/fhir/page/{sizes[0]}")
            started.append(Gateway(process, port))
        yield started[0], started[1]


def between_processes(rewriting: Gateway, plain: Gateway, rounds: int) -> Iterator[str]:
    """Return the lines of the third table."""
    yield (
        f"{'gateway':16}{'CPU':>12}{'plain CPU':>12}{'ratio':>8}"
        f"{'time':>12}{'plain time':>12}{'ratio':>8}{'memory':>12}{'plain':>10}"
    )
    for name, size in SIZES.items():
        times = max(3, min(rounds * 10, 10 * MIB * rounds // size))
        each = [gateway.cpu(size, times) for gateway in (rewriting, plain)]
        (ours, our_time), (theirs, their_time) = each
        yield (
            f"{name:16}{ours * 1e3:9.2f} ms{theirs * 1e3:9.2f} ms{ours / theirs:7.2f}x"
            f"{our_time * 1e3:9.2f} ms{their_time * 1e3:9.2f} ms{our_time / their_time:7.2f}x"
            f"{rewriting.peak():8.1f} MiB{plain.peak():6.1f} MiB"
        )


def main() -> None:
    """Run all measurements and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    usable = sorted(os.sched_getaffinity(0))
    if len(usable) < 2:
        raise SystemExit("The benchmark needs two cores: one for the gateway, one for the rest.")
    for line in in_every_spelling(rounds):
        print(line)
    print()
    for line in in_process(rounds):
        print(line)
    print()
    os.sched_setaffinity(0, {usable[1]})
    with (
        tempfile.TemporaryDirectory(prefix="rewriting-") as name,
        gateways(Path(name), (usable[0], usable[1])) as (rewriting, plain),
    ):
        for line in between_processes(rewriting, plain, rounds):
            print(line)


if __name__ == "__main__":
    main()
