"""Requests in sequence on a number of connections, as fast as they are served: wrk."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.prerequisites import program
from benchmarks.watching import Figures

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class ClosedLoop:
    """What wrk sends: a path, header fields, and for a write the file of its body."""

    path: str
    connections: int
    fields: Sequence[str] = ()
    body: Path | None = None
    method: str = "POST"

    def run(self, port: int, seconds: float) -> Figures:
        """Return requests a second, and latencies in microseconds.

        Raises SystemExit when a response was not a success: such figures cannot be compared.
        """
        url = f"http://127.0.0.1:{port}{self.path}"
        duration = f"-d{max(1, round(seconds))}s"
        options = ["-t1", f"-c{self.connections}", duration, "--timeout", "10s", "-s", str(SCRIPT)]
        for line in self.fields:
            options += ["-H", line]
        written = ["--", self.method, str(self.body)] if self.body else []
        done = subprocess.run(
            [program("wrk") or "wrk", *options, url, *written],
            capture_output=True,
            text=True,
            check=True,
        )
        report = json.loads(done.stdout.splitlines()[-1])
        if report["failed"] or not report["requests"]:
            raise SystemExit(f"{url}: {report['failed']} failures of {report['requests']}")
        return {
            "count": report["requests"],
            "rate": report["requests"] / report["duration"] * 1e6,
            "p50_us": report["p50"],
            "p99_us": report["p99"],
        }
