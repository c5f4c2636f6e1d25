"""TLS towards the callers: certificates, client certificates, and their renewal."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as pem

from tests.doubles.certificates import Pki
from tests.doubles.platform import Platform, fhir
from tests.doubles.wire import TruncatedResponseError, Wire, get, post
from tests.lifecycle.conftest import PATIENCE, Service, StartService
from tests.lifecycle.test_reload import problems_of, wait_until_reloaded


async def status(service: Service, tls: ssl.SSLContext) -> int:
    async with await Wire.open(service.address, tls=tls) as wire:
        return (await wire.fetch(get("/fhir/Patient/1"))).status


async def test_over_tls_links_are_https(
    start_service: StartService, platform: Platform, pki: Pki
) -> None:
    """HTTP/1.1 is negotiated, and nothing older than TLS 1.2."""
    body = json.dumps({"resourceType": "Bundle", "link": [{"url": f"{platform.url}/Patient"}]})
    platform.respond(fhir(body.encode()))
    service = await start_service.ready(listen=pki.settings())
    context = pki.client()
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with await Wire.open(service.address, tls=context) as wire:
        response = await wire.fetch(get("/fhir/Patient"))
        tls = wire.writer.get_extra_info("ssl_object")
        assert tls.selected_alpn_protocol() == "http/1.1"
        assert tls.version() in ("TLSv1.2", "TLSv1.3")
    assert response.json()["link"] == [{"url": "https://gateway/fhir/Patient"}]


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(get("/fhir/Patient/1", "Connection: close"), id="close"),
        pytest.param(get("/fhir/Patient/1", version="1.0"), id="1.0"),
        pytest.param(post("/fhir/Patient", b"{}", "Connection: close"), id="write"),
    ],
)
async def test_shutdown_does_not_wait_for_a_caller_that_was_served(
    start_service: StartService, pki: Pki, request_: bytes
) -> None:
    service = await start_service.ready(
        listen=pki.settings(), limits={"header_timeout": 5 * PATIENCE}
    )
    async with (
        await Wire.open(service.address, tls=pki.client()) as wire,
        asyncio.timeout(PATIENCE),
    ):
        assert (await wire.fetch(request_)).status == 200
        assert await wire.at_end()


async def test_plain_http_on_tls_listener_is_dropped(start_service: StartService, pki: Pki) -> None:
    service = await start_service.ready(listen=pki.settings(), limits={"header_timeout": 10})
    async with await Wire.open(service.address) as plain, await Wire.open(service.address) as mute:
        await plain.send(get("/fhir/Patient/1"))
        assert await plain.at_end()
        assert await status(service, pki.client()) == 200
        assert await mute.at_end()
    assert not service.logged("Traceback")


async def test_a_new_certificate_serves_new_connections(
    start_service: StartService, pki: Pki
) -> None:
    service = await start_service.ready(listen=pki.settings())
    async with await Wire.open(service.address, tls=pki.client()) as persistent:
        assert (await persistent.fetch(get("/fhir/Patient/1"))).status == 200
        successor = trustme.CA()
        pki.renew(successor)
        await wait_until_reloaded(service, 1)
        assert await status(service, pki.client(successor)) == 200
        with pytest.raises(ssl.SSLCertVerificationError):
            await status(service, pki.client())
        assert (await persistent.fetch(get("/fhir/Patient/1"))).status == 200


async def test_a_certificate_without_its_key_changes_nothing(
    start_service: StartService, pki: Pki
) -> None:
    service = await start_service.ready(listen=pki.settings())
    pki.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes())
    assert "the key does not belong to the certificate" in (await problems_of(service))[0]
    assert await status(service, pki.client()) == 200


async def test_client_certificates_are_required_and_verified(
    start_service: StartService, pki: Pki, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    service = await start_service.ready(
        listen=pki.settings(client_ca_file=str(tmp_path / "clients.pem"))
    )
    known, stranger, nobody = pki.client(), pki.client(), pki.client()
    authority.issue_cert("lab.clinic.uz").configure_cert(known)
    trustme.CA().issue_cert("lab.clinic.uz").configure_cert(stranger)
    assert await status(service, known) == 200
    for other in (stranger, nobody):
        # TLS 1.3 tells the client only after it believes to be through.
        with pytest.raises((OSError, TruncatedResponseError)):
            await status(service, other)
    assert not service.logged("Traceback")


async def test_a_caller_with_a_key_needs_no_certificate(
    start_service: StartService, pki: Pki, tmp_path: Path
) -> None:
    """Certificates are requested and not required then."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "clients.pem")
    callers = [
        {"name": "lab", "client_cert_names": ["Lab.Clinic.uz"]},
        {"name": "his", "api_key": "a-long-enough-key"},
    ]
    listen = pki.settings(client_ca_file=str(tmp_path / "clients.pem"))
    service = await start_service.ready(listen=listen, callers=callers)
    lab = pki.client()
    authority.issue_cert("lab.clinic.uz").configure_cert(lab)
    assert await status(service, lab) == 200
    async with await Wire.open(service.address, tls=pki.client()) as wire:
        keyed = await wire.fetch(get("/fhir/Patient/1", "X-Api-Key: a-long-enough-key"))
        assert keyed.status == 200
        assert (await wire.fetch(get("/fhir/Patient/1"))).reason == "caller-unauthenticated"
    await service.wait_until(lambda: len(service.audit("exchange")) == 3, "the records")
    assert [r["caller"] for r in service.audit("exchange")][:2] == ["lab", "his"]


ENCRYPTED = pem.load_pem_private_key(
    trustme.CA().issue_cert("localhost").private_key_pem.bytes(), None
).private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.BestAvailableEncryption(b"secret"))


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("cert", None, "listen.tls.cert_file: {path}: no such file"),
        ("key", None, "listen.tls.key_file: {path}: no such file"),
        ("cert", b"rubbish", "not a PEM certificate chain and its private key"),
        ("key", trustme.CA().issue_cert("a").private_key_pem.bytes(), "does not belong"),
        # The gateway does not ask for a passphrase on a terminal.
        ("key", ENCRYPTED, "the key is encrypted"),
        ("clients", b"none", "listen.tls.client_ca_file"),
    ],
)
async def test_unusable_files_end_the_start(
    start_service: StartService, pki: Pki, file: str, content: bytes | None, words: str
) -> None:
    path = pki.directory / f"{file}.pem"
    path.unlink() if content is None else path.write_bytes(content)
    more = {"client_ca_file": str(path)} if file == "clients" else {}
    service = start_service(listen=pki.settings(**more))
    assert await service.ended() == 3
    assert words.format(path=path) in service.process.stderr
