"""The expiries of certificates, as the metric has them."""

from __future__ import annotations

import datetime
import logging
from pathlib import Path

import pytest
import trustme

from gateway.app import tls_contexts
from gateway.config.loader import load_settings
from gateway.config.settings import Settings
from tests.doubles.gateway import running_gateway
from tests.doubles.platform import Platform
from tests.doubles.sso import Sso

SOON = datetime.datetime(2030, 5, 17, 12, 30, tzinfo=datetime.UTC)
LATER = datetime.datetime(2031, 5, 17, 12, 30, tzinfo=datetime.UTC)
GAUGE = "dhp_gateway_certificate_expiry_timestamp_seconds"


class Files:
    """A CA and the files that settings may name."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority = trustme.CA()
        self.write("key.pem", self.issue("cert.pem", SOON))

    def issue(self, name: str, ends: datetime.datetime) -> bytes:
        """Write a certificate and the CA's behind it; the certificate's key."""
        leaf = self.authority.issue_cert("localhost", not_after=ends)
        self.write(name, leaf.cert_chain_pems[0].bytes() + self.authority.cert_pem.bytes())
        return leaf.private_key_pem.bytes()

    def write(self, name: str, content: bytes) -> None:
        (self.directory / name).write_bytes(content)

    def of(self, **files: str) -> dict[str, str]:
        return {key: str(self.directory / name) for key, name in files.items()}


@pytest.fixture
def files(tmp_path: Path) -> Files:
    """A certificate that ends soon, `cert.pem`, with `key.pem`."""
    return Files(tmp_path)


def settings(tmp_path: Path, text: str = "") -> Settings:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "environment: dhp-playground\n"
        "credentials: {default: {client_id: hospital-17, client_secret: planted}}\n" + text
    )
    return load_settings(file, {})


def test_sso_and_platform_share_a_context_where_they_trust_the_same(
    tmp_path: Path, files: Files
) -> None:
    """A certificate for the platform is not shown to the SSO, and each has its own CAs."""

    def shared(text: str) -> bool:
        named = settings(tmp_path, text)
        platform = tls_contexts.platform_tls(named)
        return tls_contexts.sso_tls(named, platform) is platform

    ca, key = files.directory / "cert.pem", files.directory / "key.pem"
    assert shared("")
    assert shared(f"platform: {{ca_file: {ca}}}\nsso: {{ca_file: {ca}}}\n")
    assert not shared(f"sso: {{ca_file: {ca}}}\n")
    assert not shared(f"platform: {{client_cert_file: {ca}, client_key_file: {key}}}\n")


def test_without_certificates_there_are_no_expiries(tmp_path: Path) -> None:
    assert tls_contexts.certificate_expiries(settings(tmp_path)) == {}


def test_every_certificate_of_the_settings_has_an_expiry(tmp_path: Path, files: Files) -> None:
    files.issue("short.pem", SOON)
    files.issue("long.pem", LATER)
    both = [
        (tmp_path / name).read_bytes().partition(b"-----END")[0]
        for name in ("short.pem", "long.pem")
    ]
    end = b"-----END CERTIFICATE-----\n"
    files.write("roots.pem", both[1] + end + both[0] + end)
    text = """
listen: {tls: {cert_file: D/cert.pem, key_file: D/key.pem, client_ca_file: D/roots.pem}}
platform: {ca_file: D/short.pem, client_cert_file: D/cert.pem, client_key_file: D/key.pem}
sso: {ca_file: D/roots.pem}
audit:
  sink: syslog
  syslog_url: "tls://localhost:6514"
  syslog_ca_file: D/roots.pem
  syslog_client_cert_file: D/cert.pem
  syslog_client_key_file: D/key.pem
"""
    found = tls_contexts.certificate_expiries(
        settings(tmp_path, text.replace("D/", f"{tmp_path}/"))
    )
    authority = tls_contexts.expiry_time(tmp_path / "short.pem", is_ca=True)
    soon, later = SOON.timestamp(), LATER.timestamp()
    assert found == {
        "listener": soon,
        "caller-ca": later,
        "platform-ca": authority,
        "platform-client": soon,
        "sso-ca": later,
        "syslog-ca": later,
        "syslog-client": soon,
    }
    assert authority > later


def test_unreadable_certificates_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "broken.pem").write_text("no certificate")
    text = f"platform: {{ca_file: {tmp_path / 'broken.pem'}}}\nsso: {{ca_file: {tmp_path}/none}}"
    with caplog.at_level(logging.WARNING):
        assert tls_contexts.certificate_expiries(settings(tmp_path, text)) == {}
    assert "the expiry of the certificate of platform-ca cannot be read" in caplog.text
    assert "the expiry of the certificate of sso-ca cannot be read" in caplog.text


async def test_the_expiry_metric_follows_a_reload(
    files: Files, platform: Platform, sso: Sso
) -> None:
    listen = {"tls": files.of(cert_file="cert.pem", key_file="key.pem")}
    async with running_gateway(platform.url, sso.token_url, listen=listen) as it:
        assert await it.metric(GAUGE, certificate="listener") == SOON.timestamp()
        files.write("key.pem", files.issue("cert.pem", LATER))
        await it.gateway.reload(it.settings)
        assert await it.metric(GAUGE, certificate="listener") == LATER.timestamp()
        bare = it.settings.listen.model_copy(update={"tls": type(it.settings.listen.tls)()})
        await it.gateway.reload(it.settings.model_copy(update={"listen": bare}))
        assert await it.metric(GAUGE) == 0
