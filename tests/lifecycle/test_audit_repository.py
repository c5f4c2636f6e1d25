"""AuditEvents of real gateway processes at a FHIR repository."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from fhir.resources.auditevent import AuditEvent

from tests.doubles.certificates import server_context
from tests.doubles.repository import Repository
from tests.doubles.sections import CLIENT_SECRET
from tests.doubles.sso import Sso
from tests.doubles.wire import fetch, get
from tests.lifecycle.conftest import Service, StartService

READ = get("/fhir/Patient/1")
TOTAL = "dhp_gateway_audit_records_total"


@pytest.fixture
def repository() -> Iterator[Repository]:
    double = Repository()
    yield double
    double.close()


@pytest.fixture
def https_repository(ca: trustme.CA) -> Iterator[Repository]:
    double = Repository(tls=server_context(ca))
    yield double
    double.close()


def to(repository: Repository, **more: Any) -> dict[str, Any]:
    return {"fhir_audit_events": True, "fhir_endpoint": repository.url, **more}


def is_exchange(event: dict[str, Any]) -> bool:
    return str(event["category"][0]["coding"][0]["code"]) == "rest"


def request_ids(stored: dict[str, Any]) -> list[str]:
    return [
        event["entity"][-1]["what"]["identifier"]["value"]
        for event in stored.values()
        if is_exchange(event)
    ]


def recorded(service: Service) -> list[str]:
    return [record["request_id"] for record in service.audit("exchange")]


async def wait_for_exchanges(repository: Repository, count: int) -> dict[str, Any]:
    return await asyncio.to_thread(
        repository.wait_until, lambda stored: len(request_ids(stored)) >= count
    )


async def test_fhir_ca_file_makes_the_certificate_of_the_repository_valid(
    start_service: StartService, https_repository: Repository, tmp_path: Path
) -> None:
    audit = to(https_repository, fhir_ca_file=str(tmp_path / "ca.pem"))
    service = await start_service.ready(audit=audit)
    assert (await fetch(service.address, READ)).status == 200
    await wait_for_exchanges(https_repository, 1)
    await service.end()
    assert sorted(request_ids(https_repository.current())) == sorted(recorded(service))


async def test_without_fhir_ca_file_a_repository_of_the_own_authority_gets_no_record(
    start_service: StartService, https_repository: Repository
) -> None:
    service = await start_service.ready(audit=to(https_repository))
    assert (await fetch(service.address, READ)).status == 200
    await service.wait_until(
        lambda: bool(service.logged("ClientConnectorCertificateError")), "a warning"
    )
    assert https_repository.batches == []


async def test_each_record_has_a_valid_audit_event_at_the_repository(
    start_service: StartService, repository: Repository
) -> None:
    service = await start_service.ready(audit=to(repository))
    search = get("/fhir/Patient?name=planted-name&identifier=30101901234567")
    for request in (READ, READ, search):
        assert (await fetch(service.address, request)).status == 200
    await service.end()
    assert service.audit("audit-event") == []
    assert sorted(request_ids(repository.current())) == sorted(recorded(service))
    assert len(repository.stored) == len(service.audit())
    for event in repository.current().values():
        AuditEvent.model_validate_json(json.dumps(event))
    for batch in repository.batches:
        assert batch.path == "/fhir"
        assert batch.bundle["type"] == "batch"
        assert batch.headers["content-type"] == "application/fhir+json"
        assert batch.headers["prefer"] == "return=minimal"
        assert "authorization" not in batch.headers
    received = json.dumps([batch.bundle for batch in repository.batches])
    for planted in ("planted-name", "30101901234567", CLIENT_SECRET, "Bearer", "token-1"):
        assert planted not in received


async def test_fhir_credential_sends_its_token(
    start_service: StartService, repository: Repository, sso: Sso
) -> None:
    credentials = {
        "default": {"client_id": "hospital-17", "client_secret": CLIENT_SECRET},
        "audit": {"client_id": "auditor", "client_secret": CLIENT_SECRET},
    }
    repository.behave(401)
    service = await start_service.ready(
        audit=to(repository, fhir_credential="audit"), credentials=credentials
    )
    await asyncio.to_thread(repository.wait_for_requests, 1)
    repository.behave(None)
    assert (await fetch(service.address, READ)).status == 200
    await wait_for_exchanges(repository, 1)
    await service.end()
    sent = [batch.headers["authorization"] for batch in repository.batches]
    assert all(each.startswith("Bearer ") for each in sent)
    assert sent[-1] != sent[0]
    assert sent[0].removeprefix("Bearer ") not in service.process.stderr + service.process.stdout
    assert len(repository.stored) == len(service.audit())


@pytest.mark.parametrize("trouble", [503, "take-and-reset"])
async def test_a_failed_batch_is_retried(
    start_service: StartService, repository: Repository, trouble: Any
) -> None:
    repository.behave(trouble)
    service = await start_service.ready(audit=to(repository))
    for _ in range(5):
        assert (await fetch(service.address, READ)).status == 200
    await asyncio.to_thread(repository.wait_for_requests, 2)
    repository.behave(None)
    await wait_for_exchanges(repository, 5)
    await service.end()
    found = request_ids(repository.current())
    assert sorted(found) == sorted(recorded(service))
    assert len(set(found)) == len(found)
    for versions in repository.stored.values():
        assert all(version == versions[0] for version in versions)
    assert {batch.path for batch in repository.batches} == {"/fhir"}
    assert service.logged("AuditEvents cannot be written")
    assert service.logged("AuditEvents can be written again")


async def test_a_rejected_entry_alone_is_dropped_and_counted(
    start_service: StartService, repository: Repository
) -> None:
    repository.entry_status = lambda event: (
        422 if is_exchange(event) and event["code"]["coding"][0]["code"] == "read" else None
    )
    service = await start_service.ready(audit=to(repository))
    search = get("/fhir/Patient?name=planted-name")
    for _ in range(3):
        assert (await fetch(service.address, READ)).status == 200
        assert (await fetch(service.address, search)).status == 200
    await wait_for_exchanges(repository, 3)
    await service.wait_for_metric(3, TOTAL, outcome="dropped")
    assert await service.metric(TOTAL, outcome="dropped") == 3
    await service.end()
    logged = service.logged("refused for good")
    assert len(logged) == 1
    assert "422" in logged[0]
    assert "Patient" not in logged[0]


async def test_shutdown_delivers_pending_events(
    start_service: StartService, repository: Repository
) -> None:
    repository.behave(503)
    service = await start_service.ready(audit=to(repository))
    assert (await fetch(service.address, READ)).status == 200
    await asyncio.to_thread(repository.wait_for_requests, 3)
    repository.behave(None)
    await service.end()
    assert len(repository.stored) == len(service.audit())


async def test_shutdown_does_not_wait_for_an_unresponsive_repository(
    start_service: StartService, repository: Repository
) -> None:
    repository.behave("hang")
    service = await start_service.ready(
        audit=to(repository), shutdown={"delay": 0, "drain_timeout": 1}
    )
    assert (await fetch(service.address, READ)).status == 200
    await service.end()
    assert service.logged("audit records could not be written")
    assert service.audit("exchange")
    assert service.audit("stop")
