"""The compose files: the gateway as the sidecar of an old system, watched; and as replicas."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy import tools
from tests.deploy.targets import COMPOSE, FILES, compose, mounted, settings_of
from tests.environments import installed_program, output_of

# The port of the balancer in its container.
CALLED = "http://127.0.0.1:8088/fhir/metadata"


@pytest.fixture(scope="module", params=FILES)
def services_of_each(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = compose(request.param)["services"]
    return found


@pytest.fixture(scope="module", params=["real", "sandbox"])
def services(request: pytest.FixtureRequest) -> dict[str, Any]:
    found: dict[str, Any] = compose(request.param)["services"]
    return found


def test_mounted_files_exist_and_are_read_only(services_of_each: dict[str, Any]) -> None:
    for service in services_of_each.values():
        for volume in service.get("volumes", ()):
            if volume["type"] == "bind":
                assert Path(volume["source"]).exists(), volume["source"]
                assert volume["read_only"] is True


def test_images_are_pinned(services_of_each: dict[str, Any]) -> None:
    for name, service in services_of_each.items():
        tag = service["image"].rpartition(":")[2]
        assert re.fullmatch(r"v?\d+\.\d+\.\d+(\.dev\d+)?", tag), name


def test_services_have_no_privileges(services_of_each: dict[str, Any]) -> None:
    for name, service in services_of_each.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("read_only") or name == "grafana"
        assert "privileged" not in service


def test_ports_are_published_on_loopback(services_of_each: dict[str, Any]) -> None:
    ports = [port for service in services_of_each.values() for port in service.get("ports", ())]
    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len({port["published"] for port in ports}) == len(ports)


def test_the_callers_port_is_not_published(services: dict[str, Any], tmp_path: Path) -> None:
    listen = settings_of(services["gateway"], tmp_path).listen
    assert listen.address.is_loopback
    assert listen.address.port not in [port["target"] for port in services["pod"]["ports"]]
    assert services["his"]["environment"]["FHIR_BASE_URL"] == (
        f"http://{listen.address}{listen.base_path}"
    )


def test_the_network_survives_a_restart(services: dict[str, Any]) -> None:
    for name in services.keys() & {"gateway", "his", "sandbox"}:
        assert services[name]["network_mode"] == "service:pod"
    assert services["pod"]["image"].startswith("busybox:")


def test_prometheus_finds_the_gateway(services: dict[str, Any], tmp_path: Path) -> None:
    config = yaml.safe_load(
        mounted(services["prometheus"])["/etc/prometheus/prometheus.yml"].read_text()
    )
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    name, _, port = target.partition(":")
    assert name in services["pod"]["networks"]["default"]["aliases"]
    admin = settings_of(services["gateway"], tmp_path).admin.address
    assert admin.is_wildcard
    assert int(port) == admin.port


@contextmanager
def shared_network() -> Iterator[list[str]]:
    """A network namespace with nothing but loopback, as `pod` holds it: how to run in there."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    hold = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec sleep 600"]
    with subprocess.Popen(hold, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "up\n"
            yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"]
        finally:
            holder.kill()


class NetworkNamespace:
    """Programs in one network namespace."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        self._stack = stack
        self._network = stack.enter_context(shared_network())
        self._log = stack.enter_context((folder / "log").open("w"))

    def start(
        self, line: list[str], environ: dict[str, str] | None = None, output: Any = None
    ) -> subprocess.Popen[str]:
        process = self._stack.enter_context(
            subprocess.Popen(
                [*self._network, *line],
                env={"PATH": os.environ["PATH"], **(environ or {})},
                cwd=tools.PROJECT,
                stdout=output or self._log,
                stderr=self._log,
                text=True,
            )
        )
        self._stack.callback(process.terminate)
        return process


def test_the_sandbox_example_runs(tmp_path: Path) -> None:
    busybox = installed_program("busybox")
    services = compose("sandbox")["services"]
    sandbox, gateway, his = (services[name] for name in ("sandbox", "gateway", "his"))
    ours = [sys.executable, "-m", "gateway"]
    variables = {
        **gateway["environment"],
        "DHP_GATEWAY_CONFIG": str(COMPOSE / "settings/gateway.yaml"),
        "DHP_GATEWAY_AUDIT__PATH": str(tmp_path / "audit.jsonl"),
    }
    loop = [busybox, *(part.replace("$$", "$") for part in his["command"])]
    with ExitStack() as stack:
        namespace = NetworkNamespace(stack, tmp_path)
        namespace.start([*ours, *sandbox["command"]])
        namespace.start([*ours, "run"], variables)
        old = namespace.start(loop, {**his["environment"], "PAUSE": "0.2"}, subprocess.PIPE)
        assert old.stdout is not None
        answer = next(line for line in old.stdout if line.startswith("{"))
    assert json.loads(answer)["resourceType"] == "Patient"
    assert '"outcome":"success"' in (tmp_path / "audit.jsonl").read_text()


def test_replicas_scale() -> None:
    services = compose("replicas")["services"]
    gateway = services["gateway"]
    assert gateway["scale"] == 2
    assert not {"container_name", "hostname", "ports"} & gateway.keys()


def until(holds: Callable[[str], bool], *files: Path) -> None:
    for _ in range(1200):
        if holds("".join(file.read_text() for file in files if file.exists())):
            return
        time.sleep(0.1)
    raise AssertionError(f"it does not hold for {files}")


def replicas(log: str) -> list[str]:
    found = re.findall(r"^Server gateways/(\w+)\b.* is (UP|DOWN)", log, re.MULTILINE)
    return list(dict(found).values())


def calls_of(audit: str) -> int:
    return audit.count('"event":"exchange"')


def test_replicas_are_restarted_without_a_failed_request(tmp_path: Path) -> None:
    haproxy, redis = installed_program("haproxy"), installed_program("redis-server")
    services = compose("replicas")["services"]
    trial = compose("sandbox")["services"]
    ours = [sys.executable, "-m", "gateway"]
    entrypoint = [part.replace("$$", "$") for part in services["gateway"]["entrypoint"]]
    addresses = ["127.0.0.2", "127.0.0.3"]
    balancer = mounted(services["balancer"])["/usr/local/etc/haproxy"]
    platform = {
        name: value
        for name, value in trial["gateway"]["environment"].items()
        if name.startswith("DHP_GATEWAY_")
    }
    with ExitStack() as stack:
        namespace = NetworkNamespace(stack, tmp_path)

        def gateway(address: str) -> subprocess.Popen[str]:
            variables = {
                **platform,
                **services["gateway"]["environment"],
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "HOSTNAME": address,
                "AUDIT_FOLDER": str(tmp_path),
                "DHP_GATEWAY_CONFIG": str(COMPOSE / "settings/gateway.yaml"),
                "DHP_GATEWAY_LISTEN__ADDRESS": f"{address}:8080",
                "DHP_GATEWAY_ADMIN__ADDRESS": f"{address}:9464",
                "DHP_GATEWAY_STORE__URL": "redis://127.0.0.1:6379/0",
            }
            return namespace.start(entrypoint, variables)

        audits = {address: tmp_path / f"{address}.jsonl" for address in addresses}
        namespace.start([*ours, *trial["sandbox"]["command"]])
        namespace.start([redis, *services["redis"]["command"][1:]])
        namespace.start([sys.executable, str(tools.HERE / "names.py"), *addresses])
        log = tmp_path / "log"
        until(lambda text: "Ctrl-C" in text, log)
        running = {address: gateway(address) for address in addresses}
        namespace.start([haproxy, "-f", str(balancer / "haproxy.cfg")])
        for address in addresses:
            until(lambda text: '"event":"start"' in text, audits[address])
        until(lambda text: replicas(text) == ["UP", "UP"], log)
        line = [sys.executable, str(tools.HERE / "calls.py"), CALLED]
        calls = namespace.start(line, output=subprocess.PIPE)

        def wait_until_called() -> None:
            before = sum(calls_of(audit.read_text()) for audit in audits.values())
            until(lambda text: calls_of(text) > before + 50, *audits.values())

        for address in addresses:
            wait_until_called()
            running[address].terminate()
            assert running[address].wait() == 0
            until(lambda text: "DOWN" in replicas(text), log)
            wait_until_called()
            gateway(address)
            until(lambda text: replicas(text) == ["UP", "UP"], log)
        wait_until_called()
        calls.terminate()
        told, _ = calls.communicate()
    count, *ends = told.split()
    assert ends == ["200"], told
    records = [calls_of(audit.read_text()) for audit in audits.values()]
    assert min(records) > 0
    assert sum(records) - int(count) in (0, 1)
    for audit in audits.values():
        output_of([*ours, "audit", "verify", audit])
