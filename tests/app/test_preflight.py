"""A cause that prevents a start has the same text in every command and in the log."""

from __future__ import annotations

import json
import subprocess
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
from tests.doubles.processes import GATEWAY_COMMAND, free_port
from tests.lifecycle.test_audit import memory_disk

AWAY = "http://127.0.0.1:1"
CLIENT = {"client_id": "a", "client_secret": "planted-s3cret"}
KEY = {"client_id": "a", "auth_method": "private_key_jwt"}


def put_file(path: Path, content: bytes = b"") -> str:
    path.write_bytes(content)
    path.chmod(0o600)
    return str(path)


def client_secret(file: str) -> dict[str, Any]:
    return {"credentials": {"default": {"client_id": "a", "client_secret_file": file}}}


def in_folder(settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return settings whose paths begin with `FOLDER` with those of the folder."""
    found: dict[str, Any] = json.loads(json.dumps(settings).replace("FOLDER", str(folder)))
    return found


def listen_tls(cert: str, key: str, **more: str) -> dict[str, Any]:
    files = {"cert_file": f"FOLDER/{cert}", "key_file": f"FOLDER/{key}", **more}
    return {"listen": {"tls": files}}


HTTPS = {"fhir_base_url": "https://127.0.0.1:1/fhir"}
SSO = {"token_url": "https://127.0.0.1:1/token"}
USER = {"basic_auth": {"username": "his", "password": "planted-pass"}}
# Settings that each prevent a start in one way, by the key to be mended; `broken` writes the files.
BROKEN: dict[str, dict[str, Any]] = {
    "credentials.default.client_secret_file": client_secret("FOLDER/none"),
    "credentials.default.private_key_file": {
        "credentials": {"default": {**KEY, "private_key_file": "FOLDER/garbage"}}
    },
    "callers[0].api_key_file": {"callers": [{"name": "a", "api_key_file": "FOLDER/empty"}]},
    "callers[0].basic_auth.password_file": {
        "callers": [{"name": "a", "basic_auth": {"username": "u", "password_file": "FOLDER/pair"}}]
    },
    "callers[1].api_key_file": {
        "callers": [{"name": name, "api_key_file": f"FOLDER/{name}"} for name in ("one", "two")]
    },
    "callers[1].basic_auth.password": {"callers": [{"name": name, **USER} for name in "ab"]},
    "admin.operators[0].password_file": {
        "admin": {"operators": [{"name": "o", "password_file": "FOLDER/none"}]}
    },
    "listen.tls.cert_file": listen_tls("cert", "key"),
    "listen.tls.key_file": listen_tls("cert", "none"),
    "listen.tls.client_ca_file": listen_tls("own", "own", client_ca_file="FOLDER/garbage"),
    "platform.ca_file": {"platform": {**HTTPS, "ca_file": "FOLDER/garbage"}},
    "platform.client_cert_file": {
        "platform": {**HTTPS, "client_cert_file": "FOLDER/cert", "client_key_file": "FOLDER/key"}
    },
    "sso.ca_file": {"sso": {**SSO, "ca_file": "FOLDER/none"}},
    "alerts.notify_file line 2": {"alerts": {"notify_file": "FOLDER/lines"}},
    "store.encryption_key": {"store": {"encryption_key": "short"}},
    "store.ca_file": {"store": {"url": "rediss://127.0.0.1:1", "ca_file": "FOLDER/garbage"}},
    "audit.syslog_ca_file": {
        "audit": {
            "sink": "syslog",
            "syslog_url": "tls://127.0.0.1:1",
            "syslog_ca_file": "FOLDER/garbage",
        }
    },
    "audit.fhir_ca_file": {
        "audit": {
            "fhir_audit_events": True,
            "fhir_endpoint": "https://127.0.0.1:1/fhir",
            "fhir_ca_file": "FOLDER/garbage",
        }
    },
    "audit.path": {"audit": {"sink": "file", "path": "FOLDER/none/audit.jsonl"}},
    "tracing.authorization_file": {
        "tracing": {"otlp_endpoint": f"{AWAY}/v1/traces", "authorization_file": "FOLDER/none"}
    },
    "tracing.authorization": {
        "tracing": {"otlp_endpoint": f"{AWAY}/v1/traces", "authorization": "Bearer planted\r"}
    },
}


def broken(folder: Path, key: str) -> dict[str, Any]:
    one, other = (trustme.CA().issue_cert("localhost") for _ in range(2))
    files = {
        "cert": one.cert_chain_pems[0].bytes(),
        "key": other.private_key_pem.bytes(),
        "own": one.private_key_and_cert_chain_pem.bytes(),
        "garbage": b"no PEM",
        "empty": b"",
        "pair": b"planted-key\nplanted-former-key\n",
        "lines": b"json://127.0.0.1:1\nplanted\n",
        **dict.fromkeys(("one", "two"), b"planted-key"),
    }
    for name, content in files.items():
        put_file(folder / name, content)
    return in_folder(BROKEN[key], folder)


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


@pytest.mark.parametrize("key", BROKEN)
async def test_each_cause_has_one_text(tmp_path: Path, key: str) -> None:
    changed = broken(tmp_path, key)
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


@pytest.mark.parametrize(
    ("place", "trouble"),
    [
        ("none/audit.jsonl", "/none does not exist. Create it"),
        ("text", "/text: is not an audit file"),
        # Not to change its owner.
        (".", " is a folder. Set another audit.path"),
    ],
)
async def test_an_unusable_audit_file_is_reported(tmp_path: Path, place: str, trouble: str) -> None:
    (tmp_path / "text").write_text("something else\n")
    file = write(tmp_path, {"audit": {"sink": "file", "path": str(tmp_path / place)}})
    text = f"audit.path: {tmp_path}{trouble}"
    # What is in a file is looked at by the start only.
    assert (text in (await dhp("check", "--config", file)).out) is (place != "text")
    started = await dhp("run", "--config", file)
    assert (started.code, text in started.err) == (3, True)


def test_a_full_disk_of_the_audit_is_reported(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    file = write(tmp_path, {"audit": {"sink": "file", "path": str(disk / "audit.jsonl")}})
    fill_up = 'head -c 9M /dev/zero >"$0/filling"; exec "$@"'
    check = (GATEWAY_COMMAND, "check", "--config", file)
    checked = subprocess.run(
        [*memory_disk(disk), "sh", "-c", fill_up, disk, *check], capture_output=True, text=True
    )
    assert f"audit.path: {disk}: the disk is full. Free space" in checked.stdout


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


TOO_LONG = f"FOLDER/{'x' * 300}/file"
NOT_EXAMINED: dict[str, dict[str, Any]] = {
    "audit.path": {"audit": {"sink": "file", "path": TOO_LONG}},
    "credentials.default.client_secret_file": client_secret(TOO_LONG),
    "sso.ca_file": {"sso": {**SSO, "ca_file": TOO_LONG}},
}


@pytest.mark.parametrize("key", NOT_EXAMINED)
async def test_a_path_that_cannot_be_examined_prevents_a_start(tmp_path: Path, key: str) -> None:
    file = write(tmp_path, in_folder(NOT_EXAMINED[key], tmp_path))
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
