"""A cause that prevents a start has the same text in every command and in the log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gateway.app import preflight
from gateway.config.loader import load_settings
from gateway.config.section import SecretRef
from gateway.errors import StartError
from tests.doubles.command import dhp
from tests.doubles.gateway import running_gateway
from tests.doubles.processes import free_port

AWAY = "http://127.0.0.1:1"
CLIENT = {"client_id": "a", "client_secret": "planted-s3cret"}
KEY = {"client_id": "a", "auth_method": "private_key_jwt"}


def put_file(path: Path, content: bytes = b"") -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def client_secret(file: str) -> dict[str, Any]:
    return {"credentials": {"default": {"client_id": "a", "client_secret_file": file}}}


def callers(*keys: str) -> dict[str, Any]:
    return {
        "callers": [{"name": f"c{number}", "api_key_file": key} for number, key in enumerate(keys)]
    }


def broken(folder: Path) -> dict[str, dict[str, Any]]:
    """Return settings that each prevent a start in one way, by the key to be mended."""
    one, other = (trustme.CA().issue_cert("localhost") for _ in range(2))
    cert = put_file(folder / "cert", one.cert_chain_pems[0].bytes())
    key = put_file(folder / "key", other.private_key_pem.bytes())
    missing, garbage = str(folder / "none"), put_file(folder / "garbage", b"no PEM")
    copies = [put_file(folder / name, b"planted-key") for name in ("first", "second")]
    own = put_file(folder / "own", one.private_key_and_cert_chain_pem.bytes())
    user = {"basic_auth": {"username": "his", "password": "planted-pass"}}
    https = {"fhir_base_url": "https://127.0.0.1:1/fhir"}
    lines = put_file(folder / "lines", b"json://127.0.0.1:1\nplanted\n")
    syslog = {"sink": "syslog", "syslog_url": "tls://127.0.0.1:1", "syslog_ca_file": garbage}
    return {
        "credentials.default.client_secret_file": client_secret(missing),
        "credentials.default.private_key_file": {
            "credentials": {"default": {**KEY, "private_key_file": garbage}}
        },
        "callers[0].api_key_file": callers(put_file(folder / "empty")),
        "callers[1].api_key_file": callers(*copies),
        "callers[1].basic_auth.password": {
            "callers": [{"name": "a", **user}, {"name": "b", **user}]
        },
        "admin.operators[0].password_file": {
            "admin": {"operators": [{"name": "o", "password_file": missing}]}
        },
        "listen.tls.cert_file": {"listen": {"tls": {"cert_file": cert, "key_file": key}}},
        "listen.tls.key_file": {"listen": {"tls": {"cert_file": cert, "key_file": missing}}},
        "listen.tls.client_ca_file": {
            "listen": {"tls": {"cert_file": own, "key_file": own, "client_ca_file": garbage}}
        },
        "platform.ca_file": {"platform": {**https, "ca_file": garbage}},
        "platform.client_cert_file": {
            "platform": {**https, "client_cert_file": cert, "client_key_file": key}
        },
        "sso.ca_file": {"sso": {"token_url": "https://127.0.0.1:1/token", "ca_file": missing}},
        "alerts.notify_file line 2": {"alerts": {"notify_file": lines}},
        "store.encryption_key": {"store": {"encryption_key": "short"}},
        "store.ca_file": {"store": {"url": "rediss://127.0.0.1:1", "ca_file": garbage}},
        "audit.syslog_ca_file": {"audit": syslog},
        "audit.path": {"audit": {"sink": "file", "path": f"{missing}/audit.jsonl"}},
        "tracing.authorization_file": {
            "tracing": {"otlp_endpoint": f"{AWAY}/v1/traces", "authorization_file": missing}
        },
    }


KEYS = (
    "credentials.default.client_secret_file",
    "credentials.default.private_key_file",
    "callers[0].api_key_file",
    "callers[1].api_key_file",
    "callers[1].basic_auth.password",
    "admin.operators[0].password_file",
    "listen.tls.cert_file",
    "listen.tls.key_file",
    "listen.tls.client_ca_file",
    "platform.ca_file",
    "platform.client_cert_file",
    "sso.ca_file",
    "alerts.notify_file line 2",
    "store.encryption_key",
    "store.ca_file",
    "audit.syslog_ca_file",
    "audit.path",
    "tracing.authorization_file",
)
NOT_RELOADED = ("store.", "audit.", "tracing.")


def write(folder: Path, changed: dict[str, Any], **addresses: str) -> Path:
    settings: dict[str, Any] = {
        "environment": "custom",
        "listen": {"address": addresses.get("listen", f"127.0.0.1:{free_port()}")},
        "admin": {"address": addresses.get("admin", f"127.0.0.1:{free_port()}")},
        "platform": {"fhir_base_url": f"{AWAY}/fhir"},
        "sso": {"token_url": f"{AWAY}/token"},
        "credentials": {"default": CLIENT},
    }
    for section, value in changed.items():
        is_map = section in settings and section != "credentials"
        settings[section] = {**settings[section], **value} if is_map else value
    file = folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(settings))
    return file


@pytest.mark.parametrize("key", KEYS)
async def test_each_cause_has_one_text(tmp_path: Path, key: str) -> None:
    changed = broken(tmp_path)[key]
    beside = await dhp(
        "check", "--config", write(tmp_path, {**changed, "retries": {"max_attempts": 0}})
    )
    file = write(tmp_path, changed)
    alone = await dhp("check", "--config", file)
    assert (beside.code, alone.code) == (2, 2)
    assert beside.out.splitlines()[1:] == alone.out.splitlines()
    text = alone.out.rstrip().removesuffix(".")
    assert text.startswith(f"{key}: ")
    assert "planted" not in text
    started = await dhp("run", "--config", file)
    assert started.code == 3
    # The log has a thread of its own, so that one of its lines may come last.
    lines = [line.removesuffix(".") for line in started.err.splitlines()]
    assert f"dhp-gateway: could not start: {text}" in lines
    report = json.loads((await dhp("doctor", "--json", "--config", file)).out)
    reported = [f"{key}: {each['message']}. {each['hint']}" for each in report["findings"]]
    assert [each.removesuffix(". ") for each in reported if each.startswith(text)] == [text]
    if not key.startswith(NOT_RELOADED):
        fixed = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        async with running_gateway(f"{AWAY}/fhir", f"{AWAY}/token") as it:
            with pytest.raises(StartError) as refused:
                await it.gateway.reload(load_settings(write(tmp_path, changed, **fixed), {}))
        assert str(refused.value).removesuffix(".") == text


async def test_a_folder_as_the_audit_file_is_reported(tmp_path: Path) -> None:
    """The text does not suggest a change of its owner."""
    folder = tmp_path / "audit.jsonl"
    folder.mkdir()
    file = write(tmp_path, {"audit": {"sink": "file", "path": str(folder)}})
    text = f"audit.path: {folder} is a folder. Set another audit.path"
    assert text in (await dhp("check", "--config", file)).out
    assert text in (await dhp("run", "--config", file)).err


async def test_a_quoted_alert_address_has_two_findings(tmp_path: Path) -> None:
    file = write(tmp_path, {"alerts": {"notify": ["'json://127.0.0.1:1'"]}})
    odd, failed = (await dhp("check", "--config", file)).out.splitlines()
    assert odd.startswith("alerts.notify[0]: is in quotation marks")
    assert failed.startswith("alerts.notify[0]: is not an address that Apprise understands")
    started = await dhp("run", "--config", file)
    assert (started.code, failed in started.err) == (3, True)


UNUSED: dict[str, dict[str, Any]] = {
    "a credential of no caller": {
        "credentials": {"default": CLIENT, "spare": {"client_id": "b", "client_secret_file": "no"}}
    },
    "a login that is off": {"login": {"client_id": "web", "client_secret_file": "no"}},
    "an outbox that is off": {"outbox": {"encryption_key_file": "no"}},
    "tracing without a collector": {"tracing": {"authorization_file": "no", "ca_file": "no"}},
    "a collector without TLS": {"tracing": {"otlp_endpoint": f"{AWAY}/v1/traces", "ca_file": "no"}},
    "a store without TLS": {"store": {"url": "redis://127.0.0.1:1", "ca_file": "no"}},
    "an audit without syslog": {"audit": {"sink": "stdout", "syslog_ca_file": "no"}},
    "an audit repository without TLS": {
        "audit": {
            "fhir_audit_events": True,
            "fhir_endpoint": f"{AWAY}/audit",
            "fhir_ca_file": "no",
        }
    },
    "a platform and an SSO without TLS": {
        "platform": {"ca_file": "no", "client_cert_file": "no", "client_key_file": "no"},
        "sso": {"ca_file": "no"},
    },
}


@pytest.mark.parametrize("name", UNUSED)
async def test_an_unused_file_prevents_no_start(tmp_path: Path, name: str) -> None:
    """`check` reports it, because it will be missed once it is used."""
    file = write(tmp_path, UNUSED[name])
    assert (await dhp("check", "--config", file)).code == 2
    async with running_gateway(f"{AWAY}/fhir", f"{AWAY}/token", **UNUSED[name]) as it:
        await it.gateway.reload(it.settings)


async def test_a_reload_does_not_check_what_is_opened_at_start_only(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text("A" * 43)
    store = {"encryption_key_file": str(key)}
    async with running_gateway(f"{AWAY}/fhir", f"{AWAY}/token", store=store) as it:
        key.unlink()
        await it.gateway.reload(it.settings)


def paths_that_cannot_be_examined(folder: Path) -> dict[str, dict[str, Any]]:
    """Return settings by the key whose file the system does not even look for."""
    name = str(folder / ("x" * 300) / "file")
    return {
        "audit.path": {"audit": {"sink": "file", "path": name}},
        "credentials.default.client_secret_file": client_secret(name),
        "sso.ca_file": {"sso": {"token_url": "https://127.0.0.1:1/token", "ca_file": name}},
    }


@pytest.mark.parametrize(
    "key", ["audit.path", "credentials.default.client_secret_file", "sso.ca_file"]
)
async def test_a_path_that_cannot_be_examined_prevents_a_start(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, paths_that_cannot_be_examined(tmp_path)[key])
    checked = await dhp("check", "--config", file)
    assert (checked.code, checked.out.startswith(f"{key}: ")) == (2, True)
    assert "file name too long" in checked.out
    started = await dhp("run", "--config", file)
    assert (started.code, checked.out.rstrip().removesuffix(".") in started.err) == (3, True)


async def test_a_secret_that_vanishes_while_it_is_examined_prevents_a_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = Path(put_file(tmp_path / "secret", b"planted-s3cret"))
    settings = load_settings(write(tmp_path, client_secret(str(secret))), {})
    read = SecretRef.read

    def read_and_remove(self: SecretRef) -> Any:
        text = read(self)
        secret.unlink()
        return text

    monkeypatch.setattr(SecretRef, "read", read_and_remove)
    monkeypatch.setattr(preflight, "_use", lambda *_: None)
    with pytest.raises(StartError, match=r"client_secret_file: .*no such file or directory"):
        preflight.require_usable(settings)
