"""`dhp-gateway check` tells every problem of settings and files in one run, and `run` no other."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
import yaml

from gateway.config import shape
from gateway.config.problems import Setting, dotted
from tests.doubles.command import Result, dhp
from tests.doubles.processes import free_port

CREDENTIALS = {"default": {"client_id": "a", "client_secret": "planted-s3cret"}}
NEEDED: dict[Setting, dict[str, Any]] = {
    ("callers", 0): {"name": "lab"},
    ("callers", 0, "basic_auth"): {"username": "lab"},
    ("credentials", "default"): {"client_id": "a"},
}


def file_keys(annotation: Any = None, path: Setting = ()) -> Iterator[Setting]:
    """Every key of the settings that names a file, with names and numbers filled in."""
    for key, inner in shape.leaves(annotation) if annotation is not None else shape.leaves():
        here = (*path, *("default" if part == "*" else part for part in key))
        item = shape.item_of_list(inner)
        if item is not None and shape.section_of(item):
            yield from file_keys(item, (*here, 0))
        elif str(here[-1]).endswith("_file"):
            yield here


FILE_KEYS = list(file_keys())


def put(settings: dict[str, Any], key: Setting, value: object) -> None:
    """Give a key its value, and the groups that it lies in what they need."""
    here: Any = settings
    for depth, part in enumerate(key[:-1], 1):
        if isinstance(here, dict):
            here = here.setdefault(part, [{}] if isinstance(key[depth], int) else {})
        else:
            here = here[part]
        if isinstance(here, dict):
            here.update(NEEDED.get(key[:depth], {}))
    here[key[-1]] = value


def write(tmp_path: Path, settings: dict[str, Any]) -> Path:
    """A settings file."""
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump({"credentials": CREDENTIALS, **settings}))
    return file


async def check(tmp_path: Path, settings: dict[str, Any]) -> Result:
    """What `check` says of settings."""
    return await dhp("check", "--config", write(tmp_path, settings))


def keys(result: Result) -> list[str]:
    """The keys that its lines begin with."""
    return [line.partition(": ")[0] for line in result.out.splitlines()]


@pytest.mark.parametrize("wrong", [{}, {"workers": 0, "log": {"level": "x"}}], ids=["", "beside"])
async def test_every_key_that_names_a_file(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """A file that is missing is told with its key, of every key that names one, in one run."""
    missing = str(tmp_path / "none")
    settings: dict[str, Any] = {"credentials": {"default": {}}, **wrong}
    for key in FILE_KEYS:
        put(settings, key, missing)
    result = await check(tmp_path, settings)
    assert result.code == 2
    assert len(FILE_KEYS) > 15
    assert {dotted(key) for key in FILE_KEYS} <= set(keys(result))
    assert set(wrong) <= {key.partition(".")[0] for key in keys(result)}


@pytest.mark.parametrize("name", ["cert_file", "key_file", "client_ca_file"])
async def test_the_listeners_files_alone(tmp_path: Path, name: str) -> None:
    """Of three files that belong together the one that is missing is named, once."""
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
    """Write a file."""
    path.write_bytes(content)
    return path


def unusable(folder: Path) -> dict[str, dict[str, Any]]:
    """Settings whose files can be read and not used, by the key that is at fault."""
    authority = trustme.CA()
    one, other = authority.issue_cert("localhost"), authority.issue_cert("localhost")
    cert = str(put_file(folder / "cert.pem", one.cert_chain_pems[0].bytes()))
    foreign = str(put_file(folder / "other.pem", other.private_key_pem.bytes()))
    nonsense = str(put_file(folder / "nonsense", b"no PEM"))
    key = str(put_file(folder / "key", b"k3y-of-two"))
    again = str(put_file(folder / "again", b"k3y-of-two\n"))
    jwt = {"client_id": "a", "auth_method": "private_key_jwt", "private_key_file": nonsense}
    basic = {"username": "his", "password": "same-pass"}
    return {
        "listen.tls.cert_file": {"listen": {"tls": {"cert_file": cert, "key_file": foreign}}},
        "listen.tls.client_ca_file": {
            "listen": {
                "tls": {
                    "cert_file": str(
                        put_file(folder / "own.pem", one.private_key_and_cert_chain_pem.bytes())
                    ),
                    "key_file": str(folder / "own.pem"),
                    "client_ca_file": nonsense,
                }
            }
        },
        "platform.client_cert_file": {
            "platform": {"client_cert_file": cert, "client_key_file": foreign}
        },
        "platform.ca_file": {"platform": {"ca_file": nonsense}},
        "sso.ca_file": {"sso": {"ca_file": nonsense}},
        "credentials.default.private_key_file": {"credentials": {"default": jwt}},
        "store.encryption_key": {"store": {"encryption_key": "short"}},
        "callers[1].api_key_file": {
            "callers": [{"name": "a", "api_key_file": key}, {"name": "b", "api_key_file": again}]
        },
        "callers[1].basic_auth.password": {
            "callers": [{"name": "a", "basic_auth": basic}, {"name": "b", "basic_auth": basic}]
        },
        "audit.path": {"audit": {"sink": "file", "path": str(folder / "none/audit.jsonl")}},
        "audit.syslog_ca_file": {
            "audit": {
                "sink": "syslog",
                "syslog_url": "tls://localhost:1",
                "syslog_ca_file": nonsense,
            }
        },
    }


UNUSABLE = (
    *("listen.tls.cert_file", "listen.tls.client_ca_file", "platform.client_cert_file"),
    *("platform.ca_file", "sso.ca_file", "credentials.default.private_key_file"),
    *("store.encryption_key", "callers[1].api_key_file", "callers[1].basic_auth.password"),
    *("audit.path", "audit.syslog_ca_file"),
)


@pytest.mark.parametrize("key", UNUSABLE)
async def test_what_run_would_refuse_is_told(tmp_path: Path, key: str) -> None:
    """What a gateway ends with code 3 for is told by `check` before, also beside other mistakes."""
    settings = unusable(tmp_path)[key]
    assert keys(await check(tmp_path, settings)) == [key]
    beside = await check(tmp_path, {**settings, "workers": 0})
    assert (beside.code, keys(beside)) == (2, ["workers", key])
    assert "k3y-of-two" not in beside.out
    assert "same-pass" not in beside.out
    settings.setdefault("listen", {})["address"] = f"127.0.0.1:{free_port()}"
    settings["admin"] = {"address": f"127.0.0.1:{free_port()}"}
    ended = await dhp("run", "--config", write(tmp_path, settings))
    assert ended.code == 3
    assert f"could not start: {key}" in ended.err


async def test_rules_are_judged_beside_other_mistakes(tmp_path: Path) -> None:
    """Every rule that the valid settings break is told, whatever else is wrong, and no other."""
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


LOGIN = {
    "login": {
        "enabled": True,
        "client_id": "web",
        "redirect_uri": "http://localhost:8080/auth/callback",
    },
    "sso": {"authorize_url": "https://sso.example/authorize"},
}


@pytest.mark.parametrize(
    ("login", "caller", "warned"),
    [
        (LOGIN, {"networks": ["10.20.0.0/16"]}, True),
        (LOGIN, {}, True),
        ({}, {"networks": ["10.20.0.0/16"]}, False),
        (LOGIN, {"networks": ["10.20.0.0/16"], "api_key": "planted-key-of-the-lab"}, False),
        (LOGIN, {"basic_auth": {"username": "lab", "password": "planted-pass"}}, False),
    ],
)
async def test_a_network_that_takes_browsers_past_the_sign_in_is_a_warning(
    tmp_path: Path, login: dict[str, Any], caller: dict[str, Any], warned: bool
) -> None:
    """Where people sign in, a caller that shows nothing is every browser of its addresses."""
    settings = {**login, "callers": [{"name": "lab", **caller}]}
    result = await check(tmp_path, settings)
    assert result.code == 0
    assert ("callers[0].networks: a browser from there is this caller" in result.err) is warned
    told = await dhp("check", "--json", "--config", write(tmp_path, settings))
    codes = [(each["level"], each["code"]) for each in json.loads(told.out)["findings"]]
    assert codes == [("warning", "setting")] * warned


async def test_an_expired_certificate_is_a_warning(tmp_path: Path) -> None:
    """A gateway starts with it, so the code stays 0; which one, and since when, is said."""
    ended = datetime.datetime(2020, 5, 17, 12, tzinfo=datetime.UTC)
    leaf = trustme.CA().issue_cert("localhost", not_after=ended)
    file = str(put_file(tmp_path / "own.pem", leaf.private_key_and_cert_chain_pem.bytes()))
    tls = {"cert_file": file, "key_file": file}
    result = await check(tmp_path, {"listen": {"tls": tls}})
    assert result.code == 0
    assert f"warning: listen.tls.cert_file: {file}: the certificate expired on 2020-05-17" in (
        result.err
    )
    told = await dhp("check", "--json", "--config", write(tmp_path, {"listen": {"tls": tls}}))
    document = json.loads(told.out)
    assert (told.code, document["ok"]) == (0, True)
    (warning,) = document["findings"]
    assert (warning["level"], warning["code"]) == ("warning", "certificate-expired")
    assert (warning["key"], warning["hint"]) == ("listen.tls.cert_file", "put a new one there")
