"""Replicas behind HAProxy: what they share, and what the failure of each part costs.

    .venv/bin/python -m benchmarks.replicas --seconds 20

Four gateways, compiled unless `--plain`, share a Redis, by its address or by Sentinels, and a
PostgreSQL. HAProxy is configured as docs/scaling.md shows it. Reads and creates arrive at a fixed
rate; meanwhile one part is stopped, killed or started again. Each line says how many requests were
sent and failed, how long the slowest took, and how many token requests the SSO received. Programs
are started as the tests do, so that the machine needs what `make test-tools` installs.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.bench import one_at_a_time
from benchmarks.growing import READ, Gateway, Laboratory
from benchmarks.open_loop import OpenLoop, Request
from benchmarks.prerequisites import provide_compiled, provide_debian_programs
from benchmarks.processes import free_port, running
from benchmarks.surroundings import HERE, haproxy_command
from tests.outbox.postgres_server import PostgresServer, postgres_server
from tests.store.redis_server import Failover, RedisServer, redis_failover, redis_server

CREATE = b'{"resourceType":"Observation","status":"final","code":{"text":"x"}}'
REQUESTS = [*[Request(READ)] * 9, Request("/fhir/Observation", "create", CREATE)]
CREATES = [Request("/fhir/Observation", "create", CREATE)]
Event = Callable[["Cluster"], None]


@dataclass(slots=True)
class Cluster:
    """Running replicas behind one port."""

    port: int
    replicas: list[Gateway]
    laboratory: Laboratory

    def cpu_seconds(self) -> float:
        """Return the processor time of all replicas."""
        return sum(replica.process.cpu_seconds() for replica in self.replicas)

    def send(self, first: int, signal_number: int) -> None:
        """Send a signal to one replica."""
        self.replicas[first].process.popen.send_signal(signal_number)


def key() -> str:
    """Return a new key for what is stored."""
    return base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")


@contextlib.contextmanager
def cluster(laboratory: Laboratory, count: int, **settings: Any) -> Iterator[Cluster]:
    """Run so many replicas and HAProxy until the block ends; all have served a request."""
    port = free_port()
    with contextlib.ExitStack() as stack:
        replicas = [stack.enter_context(laboratory.gateway(**settings)) for _ in range(count)]
        lines = [
            f"    server replica-{number} 127.0.0.1:{each.port} check port {each.admin}"
            for number, each in enumerate(replicas)
        ]
        template = (HERE / "haproxy_replicas.cfg").read_text().replace("@PORT@", str(port))
        configuration = laboratory.directory / f"haproxy-{port}.cfg"
        configuration.write_text("\n".join([template.rstrip(), *lines]) + "\n")
        errors = laboratory.directory / "haproxy.err"
        command = haproxy_command(configuration)
        balancer = stack.enter_context(running(command, laboratory.load_core, errors))
        balancer.until_answering(port, READ)
        yield Cluster(port, replicas, laboratory)


@dataclass(slots=True)
class Experiment:
    """A load on a cluster, and what happens after a third of it."""

    rate: float
    seconds: float

    def run(
        self, title: str, gateways: Cluster, event: Event | None = None, *, writes: bool = False
    ) -> None:
        """Print what callers saw."""
        load = OpenLoop(CREATES if writes else REQUESTS, self.rate)
        issued, used = gateways.laboratory.tokens_issued(), gateways.cpu_seconds()
        thread = threading.Thread(target=load.run, args=(gateways.port, self.seconds))
        thread.start()
        time.sleep(self.seconds / 3)
        if event is not None:
            event(gateways)
        thread.join()
        times = sorted(taken for kind in load.latencies.values() for taken in kind)
        each = (gateways.cpu_seconds() - used) / len(times) * 1e6
        failed = ", ".join(f"{count} × {name}" for name, count in sorted(load.failures.items()))
        print(
            f"{title}: {len(times) + sum('close' in name for name in load.failures)} requests,"
            f" failed: {failed or 'none'}; p50 {times[len(times) // 2] * 1e3:.1f} ms,"
            f" slowest {times[-1] * 1e3:.0f} ms; {each:.0f} µs of CPU each;"
            f" {gateways.laboratory.tokens_issued() - issued} token requests",
            flush=True,
        )


def throughput(laboratory: Laboratory, experiment: Experiment) -> None:
    """Print the processor time of a request by the number of replicas."""
    for count in (1, 2, 4):
        with cluster(laboratory, count) as gateways:
            experiment.run(f"{count} replicas, nothing shared", gateways)


def killed(laboratory: Laboratory, experiment: Experiment) -> None:
    """End one of four replicas, in order and at once."""
    with cluster(laboratory, 4) as gateways:
        experiment.run(
            "a replica is stopped (SIGTERM)", gateways, lambda all_: all_.send(0, signal.SIGTERM)
        )
    with cluster(laboratory, 4) as gateways:
        experiment.run(
            "a replica is killed (SIGKILL)", gateways, lambda all_: all_.send(0, signal.SIGKILL)
        )


def short_lived(laboratory: Laboratory) -> dict[str, Any]:
    """Return settings with tokens of two seconds."""
    return {"sso": {"token_url": f"http://127.0.0.1:{laboratory.sso}/oauth/short-lived"}}


def redis(laboratory: Laboratory, experiment: Experiment, server: RedisServer) -> None:
    """Compare token requests, and start Redis anew."""
    tokens = short_lived(laboratory)
    with cluster(laboratory, 4, **tokens) as gateways:
        experiment.run("tokens of 2 s, 4 replicas, nothing shared", gateways)
    shared = {"store": {"url": server.url, "encryption_key": key()}, **tokens}
    with cluster(laboratory, 4, **shared) as gateways:
        experiment.run("tokens of 2 s, 4 replicas share Redis", gateways)

        def restart(_: Cluster) -> None:
            server.kill()
            time.sleep(experiment.seconds / 5)
            server.start()

        experiment.run("Redis is killed and started again", gateways, restart)


def sentinel(laboratory: Laboratory, experiment: Experiment, servers: Failover) -> None:
    """End the master of a Redis with Sentinels."""
    asyncio.run(servers.sentinel.wait_for_replica())
    url = servers.sentinel.url
    settings = {"store": {"url": url, "encryption_key": key()}, **short_lived(laboratory)}
    with cluster(laboratory, 4, **settings) as gateways:
        experiment.run("the master of Redis is killed", gateways, lambda _: servers.master.kill())


def postgres(laboratory: Laboratory, experiment: Experiment, server: PostgresServer) -> None:
    """Queue writes in PostgreSQL, and start it anew meanwhile."""
    url = asyncio.run(server.fresh_database("replicas"))
    caller = {"name": "clinic", "networks": ["127.0.0.0/8"], "outbox": "always"}
    outbox = {"enabled": True, "url": url, "encryption_key": key()}
    with contextlib.ExitStack() as stack:
        with laboratory.answering():
            made = cluster(laboratory, 4, outbox=outbox, callers=[caller])
            gateways = stack.enter_context(made)
        experiment.run("no platform, creates are queued in PostgreSQL", gateways, writes=True)

        def restart(_: Cluster) -> None:
            server.stop()
            server.start()

        title = "the same while PostgreSQL is killed and started again"
        experiment.run(title, gateways, restart, writes=True)
        waiting = asyncio.run(_entries(server))
        began = time.monotonic()
        with laboratory.answering():
            while asyncio.run(_entries(server)):
                time.sleep(0.1)
            print(f"{waiting} entries were delivered in {time.monotonic() - began:.1f} s")


async def _entries(server: PostgresServer) -> int:
    connection = await server.connect("replicas")
    query = "SELECT count(*) FROM outbox_entries WHERE state IN ('waiting', 'sending')"
    found = await connection.fetchval(query)
    await connection.close()
    return int(found)


def main() -> None:
    """Run all experiments and print what they show."""
    parser = argparse.ArgumentParser(prog="replicas", description=__doc__, allow_abbrev=False)
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument("--seconds", type=float, default=20, help="of each experiment")
    parser.add_argument("--plain", action="store_true", help="do not compile the gateway")
    options = parser.parse_args()
    provide_debian_programs("haproxy", "redis-server")
    compiled = None if options.plain else provide_compiled()
    experiment = Experiment(options.rate, options.seconds)
    with (
        one_at_a_time(),
        tempfile.TemporaryDirectory(prefix="replicas-") as name,
        contextlib.ExitStack() as stack,
    ):
        directory = Path(name)
        core, load_core = sorted(os.sched_getaffinity(0))[:2]
        os.sched_setaffinity(0, {load_core})
        laboratory = Laboratory(directory, core, load_core, compiled, requests=0)
        stack.enter_context(laboratory.servers())
        with laboratory.answering():
            throughput(laboratory, experiment)
            killed(laboratory, experiment)
            (directory / "redis").mkdir()
            for server in redis_server(directory / "redis"):
                redis(laboratory, experiment, server)
            for servers in redis_failover(directory):
                sentinel(laboratory, experiment, servers)
        for database in postgres_server():
            postgres(laboratory, experiment, database)


if __name__ == "__main__":
    main()
