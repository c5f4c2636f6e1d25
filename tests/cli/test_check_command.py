"""`dhp-gateway check` reports every problem of settings and files in one run."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gateway.config import settings_schema
from gateway.config.problems import SettingPath, dotted
from tests.doubles.command import Result, dhp
from tests.doubles.processes import free_port

CREDENTIALS = {"default": {"client_id": "a", "client_secret": "planted-s3cret"}}
# A secret that stands nowhere but in the environment.
VARIABLE = {"DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET": "planted-s3cret"}
REQUIRED_SIBLINGS: dict[SettingPath, dict[str, Any]] = {
    ("callers", 0): {"name": "lab"},
    ("callers", 0, "basic_auth"): {"username": "lab"},
    ("credentials", "default"): {"client_id": "a"},
}


def file_keys(annotation: Any = None, path: SettingPath = ()) -> Iterator[SettingPath]:
    """Yield every setting that names a file, with sample names and indexes filled in."""
    for key, inner in (
        settings_schema.value_paths(annotation)
        if annotation is not None
        else settings_schema.value_paths()
    ):
        here = (*path, *("default" if part == "*" else part for part in key))
        item = settings_schema.item_of_list(inner)
        if item is not None and settings_schema.section_of(item):
            yield from file_keys(item, (*here, 0))
        elif str(here[-1]).endswith("_file"):
            yield here


FILE_KEYS = list(file_keys())


def set_value(settings: dict[str, Any], key: SettingPath, value: object) -> None:
    """Set a setting, and the settings that its sections require."""
    here: Any = settings
    for depth, part in enumerate(key[:-1], 1):
        if isinstance(here, dict):
            here = here.setdefault(part, [{}] if isinstance(key[depth], int) else {})
        else:
            here = here[part]
        if isinstance(here, dict):
            here.update(REQUIRED_SIBLINGS.get(key[:depth], {}))
    here[key[-1]] = value


def write(tmp_path: Path, settings: dict[str, Any]) -> Path:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        yaml.safe_dump({"environment": "dhp-playground", "credentials": CREDENTIALS, **settings})
    )
    return file


async def check(tmp_path: Path, settings: dict[str, Any]) -> Result:
    return await dhp("check", "--config", write(tmp_path, settings))


def keys(result: Result) -> list[str]:
    return [line.partition(": ")[0] for line in result.out.splitlines()]


@pytest.mark.parametrize(
    "wrong", [{}, {"retries": {"max_attempts": 0}, "log": {"level": "x"}}], ids=["", "beside"]
)
async def test_every_missing_file_is_reported_in_one_run(
    tmp_path: Path, wrong: dict[str, Any]
) -> None:
    missing = str(tmp_path / "none")
    settings: dict[str, Any] = {"credentials": {"default": {}}, **wrong}
    for key in FILE_KEYS:
        set_value(settings, key, missing)
    result = await check(tmp_path, settings)
    assert result.code == 2
    assert len(FILE_KEYS) > 15
    assert {dotted(key) for key in FILE_KEYS} <= set(keys(result))
    named = {line.partition(": ")[0] for line in result.out.splitlines() if missing in line}
    assert {"credentials.default.client_secret_file", "sso.ca_file"} <= named
    assert set(wrong) <= {key.partition(".")[0] for key in keys(result)}


@pytest.mark.parametrize("name", ["cert_file", "key_file", "client_ca_file"])
async def test_the_missing_one_of_the_listeners_files_is_reported_once(
    tmp_path: Path, name: str
) -> None:
    authority, files = trustme.CA(), {}
    leaf = authority.issue_cert("localhost")
    for each, content in {
        "cert_file": leaf.cert_chain_pems[0].bytes(),
        "key_file": leaf.private_key_pem.bytes(),
        "client_ca_file": authority.cert_pem.bytes(),
    }.items():
        files[each] = str(put_file(tmp_path / each, content))
    assert (await check(tmp_path, {"listen": {"tls": files}})).code == 0
    files[name] = str(tmp_path / "none")
    assert keys(await check(tmp_path, {"listen": {"tls": files}})) == [f"listen.tls.{name}"]


def put_file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


async def test_rule_violations_are_reported_beside_invalid_values(tmp_path: Path) -> None:
    callers = [
        {"name": "session", "api_key": "one-key-of-a-test"},
        {"name": "b", "api_key": "two-key-of-a-test", "rate_limit": {"burst": -1}},
        {"name": "c", "basic_auth": {"username": "x:y", "password": "p-of-a-test"}},
        {"name": "d", "api_key": "two-key-of-a-test", "credential": "none"},
    ]
    settings = {
        "callers": callers,
        "audit": {"sink": "file", "syslog_ca_file": str(tmp_path / "none")},
        "credentials": {**CREDENTIALS, "jwt": {"client_id": "a", "auth_method": "jwt"}},
        "unknown": 1,
    }
    result = await check(tmp_path, settings)
    assert sorted(keys(result)) == [
        *("audit.path", "audit.syslog_ca_file", "callers[0].name", "callers[1].rate_limit.burst"),
        *("callers[2].basic_auth.username", "callers[3].api_key", "callers[3].credential"),
        *("credentials.jwt.auth_method", "unknown"),
    ]


async def test_an_invalid_credential_hides_no_problem_of_another(tmp_path: Path) -> None:
    nonsense = str(put_file(tmp_path / "nonsense", b"no PEM"))
    jwt = {"client_id": "a", "auth_method": "private_key_jwt", "private_key_file": nonsense}
    credentials = {
        **CREDENTIALS,
        "one": {"client_id": "a", "auth_method": "jwt", "client_secret": "s-of-a-test"},
        "two": jwt,
    }
    result = await check(tmp_path, {"credentials": credentials})
    assert sorted(keys(result)) == [
        "credentials.one.auth_method",
        "credentials.two.private_key_file",
    ]


LOGIN = {
    "login": {
        "enabled": True,
        "client_id": "web",
        "redirect_uri": "http://localhost:8080/auth/callback",
    },
    "sso": {"authorize_url": "https://sso.example/authorize"},
}


async def test_an_expired_certificate_is_a_warning(tmp_path: Path) -> None:
    ended = datetime.datetime(2020, 5, 17, 12, tzinfo=datetime.UTC)
    leaf = trustme.CA().issue_cert("localhost", not_after=ended)
    pem = str(put_file(tmp_path / "own.pem", leaf.private_key_and_cert_chain_pem.bytes()))
    tls = {"cert_file": pem, "key_file": pem}
    settings = {"listen": {"tls": tls}, "credentials": {"default": {"client_id": "a"}}}
    file = write(tmp_path, settings)
    result = await dhp("check", "--config", file, environ=VARIABLE)
    assert result.code == 0
    assert f"warning: listen.tls.cert_file: {pem}: the certificate expired on 2020-05-17" in (
        result.err
    )
    printed = await dhp("check", "--json", "--config", file, environ=VARIABLE)
    document = json.loads(printed.out)
    assert (printed.code, document["ok"]) == (0, True)
    (warning,) = document["findings"]
    assert (warning["level"], warning["code"]) == ("warning", "certificate-expired")
    assert (warning["key"], warning["hint"]) == ("listen.tls.cert_file", "replace it")


KEY_FILE = {"name": "lab", "api_key_file": "KEY"}
BASIC = {"name": "his", "basic_auth": {"username": "his", "password_file": "KEY"}}
OPERATOR = {"name": "dilnoza", "password_file": "KEY"}
ADDRESSES = {"name": "lab", "networks": ["10.20.0.0/16"]}
WIDER = {"name": "his", "networks": ["10.0.0.0/8"]}
NEVER_FOUND = "is never found: callers before it have all of its addresses"
MATCHES_BROWSERS = "a browser at these addresses counts as this caller"
EVERYWHERE = "0.0.0.0:8080"
TLS = {"cert_file": "PEM", "key_file": "PEM"}
WITH_SECRET_FILE = {"client_id": "a", "client_secret_file": "SECRET"}
# Settings, and what is warned of: each key, with words that stand in its line.
WARNED: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, {}),
    # Former addresses.
    ({"environment": "playground"}, {"environment": "dhp-playground"}),
    ({"environment": "production"}, {"environment": "dhp-production"}),
    ({"environment": "dhp-production"}, {}),
    # Keys and passwords that travel unencrypted.
    (
        {"listen": {"address": EVERYWHERE}, "callers": [KEY_FILE]},
        {"listen.tls": "(lab) travel unencrypted to 0.0.0.0:8080"},
    ),
    (
        {"listen": {"address": "[::]:8080"}, "callers": [BASIC, {**KEY_FILE, "name": "b"}]},
        {"listen.tls": "(his, b) travel unencrypted to [::]:8080"},
    ),
    ({"listen": {"address": EVERYWHERE, "tls": TLS}, "callers": [KEY_FILE, BASIC]}, {}),
    ({"callers": [KEY_FILE, BASIC]}, {}),
    ({"listen": {"address": "unix:/run/x.sock"}, "callers": [KEY_FILE]}, {}),
    ({"listen": {"address": EVERYWHERE}, "callers": [{"name": "a", "networks": ["10.0.0.1"]}]}, {}),
    (
        {"admin": {"address": "10.0.0.1:9464", "operators": [OPERATOR]}},
        {"admin.address": "passwords of operators (dilnoza)"},
    ),
    ({"admin": {"operators": [OPERATOR]}}, {}),
    ({"admin": {"address": "10.0.0.1:9464"}}, {}),
    # Secrets in the settings file itself.
    (
        {"credentials": {"default": {"client_id": "a", "client_secret": "planted-s3cret"}}},
        {"credentials.default.client_secret": "credentials.default.client_secret_file"},
    ),
    (
        {"callers": [{"name": "lab", "api_key": "planted-k3y-of-a-test"}]},
        {"callers[0].api_key": "set callers[0].api_key_file to its path"},
    ),
    (
        {"callers": [{"name": "a", "basic_auth": {"username": "a", "password": "planted-p4ss"}}]},
        {"callers[0].basic_auth.password": "callers[0].basic_auth.password_file"},
    ),
    (
        {"admin": {"operators": [{"name": "dilnoza", "password": "planted-p4ss"}]}},
        {"admin.operators[0].password": "admin.operators[0].password_file"},
    ),
    (
        {"outbox": {"encryption_key": "B" * 43}},
        {"outbox.encryption_key": "outbox.encryption_key_file"},
    ),
    (
        {"tracing": {"authorization": "Bearer planted"}},
        {"tracing.authorization": "tracing.authorization_file"},
    ),
    (
        {"alerts": {"notify": ["json://127.0.0.1/a", "json://127.0.0.1/b"]}},
        {f"alerts.notify[{n}]": "set alerts.notify_file to its path" for n in range(2)},
    ),
    (
        {"store": {"url": "redis://:planted-p4ss@127.0.0.1", "encryption_key": "B" * 43}},
        {
            "store.encryption_key": "store.encryption_key_file",
            "store.url": "with the variable DHP_GATEWAY_STORE__URL",
        },
    ),
    (
        {"outbox": {"url": "postgresql://his:planted-p4ss@127.0.0.1/outbox"}},
        {"outbox.url": "DHP_GATEWAY_OUTBOX__URL"},
    ),
    # Where people sign in, a caller that shows nothing is every browser of its addresses.
    ({**LOGIN, "callers": [ADDRESSES]}, {"callers[0].networks": MATCHES_BROWSERS}),
    ({**LOGIN, "callers": [{"name": "lab"}]}, {"callers[0].networks": MATCHES_BROWSERS}),
    ({"callers": [ADDRESSES]}, {}),
    ({**LOGIN, "callers": [{**KEY_FILE, **ADDRESSES}]}, {}),
    ({**LOGIN, "callers": [BASIC]}, {}),
    # A caller that shows nothing is the first one with its address.
    ({"callers": [ADDRESSES, {**ADDRESSES, "name": "b"}]}, {"callers[1]": NEVER_FOUND}),
    ({"callers": [{"name": "a"}, {**ADDRESSES, "name": "b"}]}, {"callers[1]": NEVER_FOUND}),
    ({"callers": [WIDER, ADDRESSES, {"name": "b"}]}, {"callers[1]": NEVER_FOUND}),
    ({"callers": [ADDRESSES, WIDER, {"name": "b"}]}, {}),
    ({"callers": [{**KEY_FILE, "name": "a"}, {"name": "b"}]}, {}),
    ({"callers": [WIDER, {**KEY_FILE, **ADDRESSES}]}, {}),
    (
        {
            "listen": {"tls": {**TLS, "client_ca_file": "PEM"}},
            "callers": [{"name": "a", "client_cert_names": ["x"]}, {"name": "b"}],
        },
        {},
    ),
    # Operations that look like one of FHIR, and may be the platform's own.
    (
        {"callers": [{**KEY_FILE, "allow": {"operations": ["$documents", "$own", "$lookup"]}}]},
        {"callers[0].allow.operations[0]": "Did you mean $document?"},
    ),
    # Where audit records are not written.
    ({"audit": {"path": "/x"}}, {"audit.path": "is not used with audit.sink stdout"}),
    (
        {"audit": {"sink": "off", "syslog_url": "udp://10.0.0.1:514"}},
        {"audit.syslog_url": "Set audit.sink: syslog, or remove this."},
    ),
]


def replace_placeholders(value: Any, files: dict[str, str]) -> Any:
    """Return settings in which names of files are replaced by their paths."""
    if isinstance(value, dict):
        return {key: replace_placeholders(inner, files) for key, inner in value.items()}
    if isinstance(value, list):
        return [replace_placeholders(inner, files) for inner in value]
    return files.get(value, value) if isinstance(value, str) else value


def with_secret_files(tmp_path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Return settings whose secret files and certificates exist with mode 0600."""
    leaf = trustme.CA().issue_cert("localhost")
    contents = {
        "KEY": b"planted-k3y-of-a-test",
        "SECRET": b"planted-s3cret",
        "PEM": leaf.private_key_and_cert_chain_pem.bytes(),
    }
    files = {}
    for name, content in contents.items():
        file = put_file(tmp_path / name.lower(), content)
        file.chmod(0o600)
        files[name] = str(file)
    made: dict[str, Any] = replace_placeholders(
        {"credentials": {"default": WITH_SECRET_FILE}, **settings}, files
    )
    return made


@pytest.mark.parametrize(("settings", "warned"), WARNED)
async def test_unsafe_settings_are_warnings(
    tmp_path: Path, settings: dict[str, Any], warned: dict[str, str]
) -> None:
    file = write(tmp_path, with_secret_files(tmp_path, settings))
    result = await dhp("check", "--config", file)
    lines = [line.removeprefix("warning: ") for line in result.err.splitlines()]
    assert (result.code, [line.partition(": ")[0] for line in lines]) == (0, list(warned))
    assert all(words in line for words, line in zip(warned.values(), lines, strict=True))
    assert "planted" not in result.out + result.err
    printed = json.loads((await dhp("check", "--json", "--config", file)).out)
    assert printed["ok"] is True
    assert [(each["level"], each["code"], each["key"]) for each in printed["findings"]] == [
        ("warning", "setting", key) for key in warned
    ]


async def test_secrets_from_variables_cause_no_warning(tmp_path: Path) -> None:
    callers = [{"name": "lab", "api_key": "planted-k3y-of-a-test"}]
    environ = {
        **VARIABLE,
        "DHP_GATEWAY_CALLERS": json.dumps(callers),
        "DHP_GATEWAY_STORE__URL": "redis://:planted-p4ss@127.0.0.1",
        "DHP_GATEWAY_STORE__ENCRYPTION_KEY": "B" * 43,
    }
    result = await dhp("check", "--config", write(tmp_path, {}), environ=environ)
    assert (result.code, result.err) == (0, "")


async def test_warnings_are_reported_beside_problems(tmp_path: Path) -> None:
    settings = with_secret_files(
        tmp_path, {"environment": "production", "retries": {"max_attempts": 0}}
    )
    result = await check(tmp_path, settings)
    assert (result.code, keys(result)) == (2, ["retries.max_attempts"])
    assert result.err.startswith(
        "warning: environment: production has the addresses of guide 0.1.0"
    )


@pytest.mark.parametrize("name", ["playground", "production"])
async def test_doctor_and_start_warn_of_a_former_environment(tmp_path: Path, name: str) -> None:
    settings = with_secret_files(tmp_path, {"environment": name})
    settings["listen"] = {"address": f"127.0.0.1:{free_port()}"}
    # The start ends here, and no secret is sent anywhere.
    settings["admin"] = {"address": f"unix:{tmp_path}/none/admin.sock"}
    settings["sso"] = {"token_url": f"http://127.0.0.1:{free_port()}/token"}
    settings["platform"] = {"fhir_base_url": f"http://127.0.0.1:{free_port()}/fhir"}
    file = write(tmp_path, settings)
    result = await dhp("run", "--config", file)
    assert result.code == 3
    said = f"environment: {name} has the addresses of guide 0.1.0"
    (line,) = [each for each in result.err.splitlines() if said in each]
    assert f"dhp-{name}" in line
    printed = json.loads((await dhp("doctor", "--json", "--config", file)).out)
    (finding,) = [each for each in printed["findings"] if each["code"] == "setting"]
    assert (finding["level"], finding["key"]) == ("warning", "environment")
    assert f"dhp-{name}" in finding["hint"]


async def test_doctor_reports_the_warnings_of_check(tmp_path: Path) -> None:
    settings = with_secret_files(
        tmp_path,
        {
            "credentials": {"default": {"client_id": "a", "client_secret": "planted-s3cret"}},
            "listen": {"address": f"0.0.0.0:{free_port()}"},
            "callers": [KEY_FILE],
            "sso": {"token_url": f"http://127.0.0.1:{free_port()}/token"},
            "platform": {"fhir_base_url": f"http://127.0.0.1:{free_port()}/fhir"},
        },
    )
    printed = await dhp("doctor", "--json", "--config", write(tmp_path, settings))
    found = {each["key"]: each for each in json.loads(printed.out)["findings"]}
    for key, code in (("listen.tls", "setting"), ("credentials.default.client_secret", "secret")):
        assert (found[key]["level"], found[key]["code"]) == ("warning", code), key
    assert "client_secret_file" in found["credentials.default.client_secret"]["hint"]
