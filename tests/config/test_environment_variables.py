"""Environment variables as settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.loader import SettingsError, load_settings
from gateway.config.settings import Settings
from gateway.config.sources import variable_name

FILE = """
environment: dhp-playground
credentials: {default: {client_id: file, client_secret_file: /from/file}}
limits: {max_headers: 100, max_body_bytes: 1MiB}
"""
BASE = {
    "DHP_GATEWAY_ENVIRONMENT": "dhp-playground",
    "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_ID": "017",
    "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET": "s3cret",
}


def test_settings_can_come_from_the_environment_alone() -> None:
    credential = load_settings(None, BASE).credentials["default"]
    assert credential.client_id == "017"
    assert credential.client_secret is not None
    assert credential.client_secret.reveal() == "s3cret"


def test_the_environment_wins_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(FILE)
    settings = load_settings(file, {"DHP_GATEWAY_LIMITS__MAX_HEADERS": "7"})
    assert settings.limits.max_headers == 7
    assert settings.limits.max_body_bytes == 1024 * 1024
    assert settings.credentials["default"].client_id == "file"


@pytest.mark.parametrize(
    ("variable", "text", "read"),
    [
        ("LIMITS__MAX_BODY_BYTES", "5MiB", lambda s: s.limits.max_body_bytes == 5 * 2**20),
        ("LIMITS__MAX_BODY_BYTES", "1024", lambda s: s.limits.max_body_bytes == 1024),
        ("SHUTDOWN__DELAY", "0.5", lambda s: s.shutdown.delay == 0.5),
        ("REWRITE__ENABLED", "false", lambda s: s.rewrite.enabled is False),
        ("REWRITE__ENABLED", "NO", lambda s: s.rewrite.enabled is False),
        ("LISTEN__ADDRESS", "unix:/run/x.sock", lambda s: s.listen.address.path == "/run/x.sock"),
        ("LISTEN__PUBLIC_URL", "null", lambda s: s.listen.public_url is None),
        ("LISTEN__PUBLIC_URL", "", lambda s: s.listen.public_url is None),
        ("FHIR__SEARCH_GUARD", "off", lambda s: s.fhir.search_guard == "off"),
        ("LISTEN", '{"base_path": "/r5"}', lambda s: s.listen.base_path == "/r5"),
        ("CREDENTIALS__LAB_1", '{"client_id": "x", "client_secret": "y"}',
         lambda s: s.credentials["lab_1"].client_id == "x"),
        ("CREDENTIALS__DEFAULT__EXTRA_PARAMS", '{"aud": "x"}',
         lambda s: s.credentials["default"].extra_params == {"aud": "x"}),
        ("CREDENTIALS__DEFAULT__CLIENT_ID", "null", lambda s: s.credentials["default"].client_id
         == "null"),
        ("CALLERS", "[]", lambda s: s.callers == ()),
        ("FHIR__UNFILTERED__PLANDEFINITION", '["date"]',
         lambda s: s.fhir.unfiltered["PlanDefinition"] == ("date",)),
    ],
)  # fmt: skip
def test_a_variable_is_parsed_by_the_type_of_its_setting(
    variable: str, text: str, read: Any
) -> None:
    assert read(load_settings(None, {**BASE, f"DHP_GATEWAY_{variable}": text}))


@pytest.mark.parametrize(
    ("variable", "text", "key"),
    [
        ("LIMITS__MAX_HEADERS", "many", "limits.max_headers"),
        ("LIMITS__MAX_HEADERS", "", "limits.max_headers"),
        ("SHUTDOWN__DELAY", "nan", "shutdown.delay"),
        ("SHUTDOWN__DELAY", "1_0", "shutdown.delay"),
        ("REWRITE__ENABLED", "maybe", "rewrite.enabled"),
        ("CALLERS", "[", "callers"),
        ("LISTEN", "x", "listen"),
        ("LISTEN__BASE_PATH", "fhir", "listen.base_path"),
        # More than the code that works with it can hold.
        ("LIMITS__MAX_HEADERS", "9" * 20, "limits.max_headers"),
        ("OUTBOX__MAX_BYTES", f"{'9' * 15}GiB", "outbox.max_bytes"),
        ("LIMITS__MIN_BODY_RATE", "9" * 20, "limits.min_body_rate"),
        ("LOGIN__SESSION_LIFETIME", "1e12", "login.session_lifetime"),
        ("SHUTDOWN__DELAY", "1e12", "shutdown.delay"),
        # As from a file of variables with CRLF.
        ("PLATFORM__CA_FILE", "/etc/ca.pem\r", "platform.ca_file"),
        ("LISTEN__ADDRESS", "unix:/run/x.sock\r", "listen.address"),
        ("OUTBOX__URL", "sqlite:////var/lib/outbox.db%0D", "outbox.url"),
        ("STORE__URL", "unix:///run/store%00.sock", "store.url"),
        # As of bytes that are not UTF-8.
        ("CREDENTIALS__DEFAULT__CLIENT_SECRET", "pa\udce4", "credentials.default.client_secret"),
        ("PLATFORM__CA_FILE", "/etc/\udce4.pem", "platform.ca_file"),
        ("CREDENTIALS__DEFAULT__CLIENT_ID", "\udce4", "credentials.default.client_id"),
    ],
)
def test_a_problem_names_the_variable_on_one_line(variable: str, text: str, key: str) -> None:
    name = f"DHP_GATEWAY_{variable}"
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {**BASE, name: text})
    (problem,) = caught.value.problems
    assert (problem.key, problem.source) == (key, name)
    assert str(problem).isprintable()
    assert problem.message != "cannot be used"
    # `100000000000`, as it is written, and not `100000000000.0`.
    assert not problem.message.endswith(".0")


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("DHP_GATEWAY_LISTEN__ADRESS", "DHP_GATEWAY_LISTEN__ADDRESS"),
        ("DHP_GATEWAY_LISTEN_ADDRESS", "DHP_GATEWAY_LISTEN__ADDRESS"),
        ("DHP_GATEWAY_CREDENTIALS__LAB__CLIENT_IDD", "DHP_GATEWAY_CREDENTIALS__LAB__CLIENT_ID"),
        ("DHP_GATEWAY_listen__address", "DHP_GATEWAY_LISTEN__ADDRESS"),
        ("DHP_GATEWAY_CONFIGG", "DHP_GATEWAY_CONFIG"),
        # A list is one variable, also where its entries are groups.
        ("DHP_GATEWAY_CALLERS__0__NAME", "mean DHP_GATEWAY_CALLERS?"),
        ("DHP_GATEWAY_ADMIN__OPERATORS__0__NAME", "mean DHP_GATEWAY_ADMIN__OPERATORS?"),
        ("DHP_GATEWAY_ALERTS__NOTIFY__1", "mean DHP_GATEWAY_ALERTS__NOTIFY?"),
    ],
)
def test_an_unknown_variable_is_a_problem_that_suggests_the_nearest(name: str, meant: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(None, {**BASE, name: "x"})
    (problem,) = caught.value.problems
    assert problem.key == name
    if name.isupper():
        assert meant in problem.hint


def test_other_variables_are_ignored() -> None:
    environ = {**BASE, "DHP_GATEWAY_CONFIG": "/x", "DHP_GATEWAYS": "1", "PATH": "/bin"}
    assert load_settings(None, environ) == load_settings(None, BASE)


def test_names_of_credentials_are_matched_without_case(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("environment: dhp-playground\n"
                    "credentials: {default: {client_id: a, client_secret_file: /x}, "
                    "LabA: {client_id: b, client_secret_file: /x}}")  # fmt: skip
    settings = load_settings(file, {"DHP_GATEWAY_CREDENTIALS__LABA__CLIENT_ID": "c"})
    assert set(settings.credentials) == {"default", "LabA"}
    assert settings.credentials["LabA"].client_id == "c"


def test_names_of_credentials_in_a_variable_are_matched_without_case() -> None:
    lab = {"LabA": {"client_id": "b", "client_secret": "c"}}
    environ = {**BASE, "DHP_GATEWAY_CREDENTIALS": json.dumps(lab)}
    name = "DHP_GATEWAY_CREDENTIALS__LABA__CLIENT_ID"
    settings = load_settings(None, {**environ, name: "d"})
    assert set(settings.credentials) == {"default", "LabA"}
    assert settings.credentials["LabA"].client_id == "d"


def test_a_secret_of_the_environment_replaces_the_files_secret_file(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(FILE)
    name = "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET"
    credential = load_settings(file, {name: "from environment"}).credentials["default"]
    assert credential.client_secret_file is None
    assert credential.client_secret is not None


def test_both_forms_of_a_secret_in_the_environment_are_refused() -> None:
    """It would be undefined which of the two applies."""
    name = "DHP_GATEWAY_CREDENTIALS__DEFAULT__CLIENT_SECRET_FILE"
    with pytest.raises(SettingsError, match="both set") as caught:
        load_settings(None, {**BASE, name: "/x"})
    assert "s3cret" not in str(caught.value)


def test_a_secret_in_the_environment_is_not_shown_by_a_problem() -> None:
    environ = {**BASE, "DHP_GATEWAY_LISTEN": json.dumps({"address": "s3cret"})}
    with pytest.raises(SettingsError) as caught:
        load_settings(None, environ)
    assert "s3cret" not in str(caught.value)


LEAVES = {
    ("limits", "max_headers"): st.integers(1, 10**6),
    ("limits", "max_body_bytes"): st.integers(1, 10**12),
    ("shutdown", "delay"): st.floats(0, 1e6),
    ("retries", "budget_ratio"): st.floats(0, 1),
    ("rewrite", "enabled"): st.booleans(),
    ("fhir", "default_language"): st.sampled_from(["en", "ru", "uz"]),
    ("listen", "base_path"): st.from_regex(r"\A(/[a-z0-9]{1,8}){1,3}\Z"),
    ("credentials", "default", "client_id"): st.from_regex(r"\A[!-~]([ -~]{0,20}[!-~])?\Z"),
}
VALUES = st.fixed_dictionaries({}, optional=LEAVES)


def _tree(leaves: dict[tuple[str, ...], object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, value in leaves.items():
        here = tree
        for part in path[:-1]:
            here = here.setdefault(part, {})
        here[path[-1]] = value
    return tree


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


@given(in_file=VALUES, in_environment=VALUES)
def test_variables_override_a_file_setting_by_setting(
    tmp_path_factory: pytest.TempPathFactory,
    in_file: dict[tuple[str, ...], object],
    in_environment: dict[tuple[str, ...], object],
) -> None:
    required = {
        ("environment",): "dhp-playground",
        ("credentials", "default", "client_id"): "x",
        ("credentials", "default", "client_secret_file"): "/x",
    }
    file = tmp_path_factory.getbasetemp() / "merged.yaml"
    file.write_text(json.dumps(_tree({**required, **in_file})))
    environ = {variable_name(path): _text(value) for path, value in in_environment.items()}
    expected = _tree({**required, **in_file, **in_environment})
    assert load_settings(file, environ) == Settings.model_validate(expected)
