"""What holds without the extra `otel`: `traceparent` is passed on, and a missing extra is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.processes import GATEWAY_COMMAND, start
from tests.doubles.sections import gateway_settings
from tests.doubles.sso import Sso
from tests.doubles.wire import fetch, get

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize("value", [TRACEPARENT, "cc-not-for-us-to-judge"])
async def test_without_tracing_trace_context_is_forwarded_unchanged(
    platform: Platform, sso: Sso, value: str
) -> None:
    async with running_gateway(platform.url, sso.token_url) as gateway:
        fields = (f"traceparent: {value}", "tracestate: his=x1")
        assert (await fetch(gateway.address, get("/fhir/Patient/1", *fields))).status == 200
        [record] = await gateway.audit()
    assert platform.requests[0].header("traceparent") == value
    assert platform.requests[0].header("tracestate") == "his=x1"
    assert record["traceparent"] == (value if value == TRACEPARENT else None)


def test_a_missing_extra_prevents_the_start(tmp_path: Path) -> None:
    # Hides the packages where they are installed.
    (tmp_path / "hidden" / "opentelemetry").mkdir(parents=True)
    (tmp_path / "hidden" / "opentelemetry" / "__init__.py").touch()
    file = tmp_path / "gateway.yaml"
    settings = gateway_settings(
        "http://127.0.0.1:1/r5",
        "http://127.0.0.1:1/token",
        listen={"address": "127.0.0.1:0"},
        admin={"address": "127.0.0.1:0"},
        tracing={"otlp_endpoint": "http://127.0.0.1:4318"},
    )
    file.write_text(yaml.safe_dump(settings))
    process = start(
        [GATEWAY_COMMAND, "run", "--config", file],
        tmp_path,
        environment={"PYTHONPATH": str(tmp_path / "hidden")},
    )
    assert process.popen.wait() == 3
    assert "tracing.otlp_endpoint: needs the extra `otel`" in process.stderr
    assert "pip install 'dhp-gateway[otel]'" in process.stderr
