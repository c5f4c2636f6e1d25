"""Several processes on one port: they look like one to callers and operators."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.doubles.load import Load
from tests.doubles.platform import Platform, after, fhir
from tests.doubles.processes import children
from tests.doubles.sso import Sso
from tests.doubles.wire import ask, get
from tests.lifecycle.conftest import Service, StartService, secret_in
from tests.lifecycle.test_reload import until_reloaded

TWO: dict[str, Any] = {"workers": 2}


def workers(service: Service) -> list[int]:
    """The processes of the workers."""
    return children(service.process.popen.pid)


async def serving(service: Service, load: Load) -> None:
    """Have a load running in both workers."""
    await service.until_ready()
    load.start()
    await load.until_served(200)


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
async def test_sigterm_with_workers_loses_nothing(
    start_service: StartService, platform: Platform, tmp_path: Path, unix: bool
) -> None:
    """200 requests in flight in two workers are all served; all processes end with code 0."""
    platform.answer(after(0.1, fhir()))
    listen = {"address": f"unix:{tmp_path / 'g.sock'}"} if unix else {}
    service = start_service(**TWO, listen=listen)
    await service.until_ready()
    load = Load(service.address, 200)
    await serving(service, load)
    processes = workers(service)
    service.send(signal.SIGTERM)
    await load.until_refused()
    assert await service.ended() == 0
    assert load.failures == {}
    assert len(processes) == 2
    assert not any(map(_runs, processes))
    assert not (tmp_path / "g.sock").exists()
    assert len(service.audit("exchange")) == load.served
    assert [r["event"] for r in service.audit() if r["event"] in ("start", "stop")] == [
        "start",
        "stop",
    ]


async def test_a_dead_worker_is_replaced(start_service: StartService, platform: Platform) -> None:
    """After a kill the others serve on, and another worker comes in its place."""
    service = start_service(**TWO)
    await service.until_ready()
    killed = workers(service)[0]
    os.kill(killed, signal.SIGKILL)
    await service.until(lambda: killed not in workers(service), "its end")
    for _ in range(20):
        assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200
    await service.until(lambda: len(workers(service)) == 2, "its successor")
    await service.until_ready()
    assert service.logged("has ended (signal 9); another is started")
    service.send(signal.SIGTERM)
    assert await service.ended() == 0


async def test_one_worker_can_be_restarted_without_loss(
    start_service: StartService, platform: Platform
) -> None:
    """SIGTERM to one worker drains it while the others serve; it is replaced."""
    platform.answer(after(0.05, fhir()))
    service = start_service(**TWO)
    await service.until_ready()
    load = Load(service.address, 50)
    await serving(service, load)
    old = workers(service)
    for pid in old:
        os.kill(pid, signal.SIGTERM)
        await service.until(lambda pid=pid: pid not in workers(service), "its end")  # type: ignore[misc]
        await service.until(lambda: len(workers(service)) == 2, "its successor")
        await service.until_ready()
    await load.finish()
    assert load.failures == {}
    assert not set(old) & set(workers(service))


async def test_metrics_of_all_workers_are_one(
    start_service: StartService, platform: Platform, sso: Sso
) -> None:
    """Requests add up over workers, also over one that has died; each has its own token."""
    service = start_service(**TWO)
    await service.until_ready()
    load = Load(service.address, 20)
    await serving(service, load)
    await load.finish()
    counted = "dhp_gateway_requests_total"
    await service.until_metric(load.served, counted)
    assert await service.metric(counted) == load.served
    assert await service.metric("dhp_gateway_request_duration_seconds_count") == load.served
    assert await service.metric("dhp_gateway_build_info") == 1
    assert len(sso.requests) == 2
    os.kill(workers(service)[0], signal.SIGKILL)
    await service.until(lambda: bool(service.logged("has ended")), "its end")
    assert await service.metric(counted) == load.served


async def test_reloads_reach_all_workers_and_lose_nothing(
    start_service: StartService, platform: Platform
) -> None:
    """Ten reloads under load: nothing is lost, one reload counts as one, all workers follow."""
    platform.answer(after(0.05, fhir()))
    service = start_service(**TWO)
    await service.until_ready()
    load = Load(service.address, 100)
    await serving(service, load)
    for number in range(1, 11):
        service.change(limits={"max_headers": 100 + number % 2})
        service.send(signal.SIGHUP)
        await until_reloaded(service, number)
        await load.until_served(load.served + 50)
    await load.finish()
    assert load.failures == {}
    service.change(limits={"max_url_bytes": 20})
    service.send(signal.SIGHUP)
    await until_reloaded(service, 11)
    long = get("/fhir/Patient/a-longer-name-than-the-new-limit")
    reasons = {(await ask(service.address, long)).reason for _ in range(30)}
    assert reasons == {"url-too-long"}
    assert await service.metric("dhp_gateway_config_reload_total") == 11
    assert [r["outcome"] for r in service.audit("reload")] == ["ok"] * 11


async def test_a_refused_reload_reaches_no_worker(
    start_service: StartService, platform: Platform
) -> None:
    """A broken file changes nothing, also not for a worker that is started after it."""
    service = start_service(**TWO)
    await service.until_ready()
    service.file.write_text("listen: {adress: 1}\n")
    service.send(signal.SIGHUP)
    await until_reloaded(service, 1, "failed")
    os.kill(workers(service)[0], signal.SIGKILL)
    await service.until(lambda: bool(service.logged("another is started")), "its end")
    await service.until(lambda: len(workers(service)) == 2, "its successor")
    await service.until_ready()
    for _ in range(20):
        assert (await ask(service.address, get("/fhir/Patient/1"))).status == 200


async def test_ready_means_that_every_worker_is(start_service: StartService, sso: Sso) -> None:
    """While one worker has no token, /readyz says so."""
    sso.script(*[])
    sso.hold()
    service = start_service(**TWO)
    await sso.seen(2)
    await service.until_ready(503)
    assert '"token:default":"failed"' in (await service.operators("/readyz"))[1]
    sso.release()
    await service.until_ready()
    assert '"workers":"ok"' in (await service.operators("/readyz"))[1]


async def test_a_stopped_worker_makes_the_gateway_unready(start_service: StartService) -> None:
    """A worker that hangs is noticed by the readiness."""
    service = start_service(**TWO)
    await service.until_ready()
    hanging = workers(service)[1]
    os.kill(hanging, signal.SIGSTOP)
    await service.until_ready(503)
    assert '"failing":["workers"]' in (await service.operators("/readyz"))[1]
    os.kill(hanging, signal.SIGCONT)
    await service.until_ready()


async def test_workers_do_not_outlive_their_supervisor(start_service: StartService) -> None:
    """When the supervisor is killed its workers drain and end."""
    service = start_service(**TWO)
    await service.until_ready()
    orphans = workers(service)
    service.send(signal.SIGKILL)
    await service.ended()
    await service.until(lambda: not any(map(_runs, orphans)), "the workers' end")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def test_a_start_that_fails_in_the_workers_fails(
    start_service: StartService, tmp_path: Path
) -> None:
    """A secret that cannot be read ends the whole with code 3 and the reason."""
    service = start_service(**TWO, **secret_in(tmp_path / "none"))
    assert await service.ended() == 3
    assert "credentials.default.client_secret_file" in service.process.stderr


async def test_control_c_in_a_terminal_drains_too(
    start_service: StartService, platform: Platform
) -> None:
    """SIGINT to the whole process group is one signal, not one and a second."""
    platform.answer(after(0.5, fhir()))
    service = start_service("setsid", **TWO)
    await service.until_ready()
    waiting = asyncio.ensure_future(ask(service.address, get("/fhir/Patient/1")))
    await platform.until_seen(1)
    os.killpg(service.process.popen.pid, signal.SIGINT)
    assert (await waiting).status == 200
    assert await service.ended() == 0
