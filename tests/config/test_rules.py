"""Rules between settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gateway.config.loader import SettingsError, load_settings
from gateway.config.problems import Problem, dotted
from gateway.config.setting_rules import RESERVED_CALLERS, find_violations
from gateway.config.settings import Settings
from gateway.exchange import Exchange
from gateway.health.recent_requests import OTHERS
from gateway.login.session_auth import SESSION
from gateway.pipeline.callers import ANONYMOUS

BASE: dict[str, Any] = {
    "environment": "dhp-playground",
    "credentials": {"default": {"client_id": "a", "client_secret_file": "/run/s"}},
}
CALLER = {"name": "lab", "api_key_file": "/run/k"}
REPOSITORY: dict[str, Any] = {
    "fhir_audit_events": True,
    "fhir_endpoint": "https://audit.clinic.uz/fhir",
}
LOGIN: dict[str, Any] = {
    "enabled": True,
    "client_id": "a",
    "redirect_uri": "https://x/auth/callback",
}


def default(**values: Any) -> dict[str, Any]:
    return {"credentials": {"default": {"client_id": "a", **values}}}


def findings(settings: dict[str, Any]) -> dict[str, str]:
    checked = Settings.model_validate({**BASE, **settings})
    found = list(find_violations(checked))
    return {dotted(finding.setting): finding.message for finding in found}


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"listen": {"address": "0.0.0.0:8080", "allow_anonymous": True}},
        {"listen": {"address": "0.0.0.0:8080"}, "callers": [CALLER]},
        {"listen": {"address": "unix:/run/x"}, "admin": {"address": "unix:/run/y"}},
        {"listen": {"address": "127.0.0.1:0"}, "admin": {"address": "127.0.0.1:0"}},
        {"listen": {"address": "127.0.0.1:8080", "reuse_port": True}},
        {"platform": {"fhir_base_url": "http://10.0.0.1", "allow_plaintext": True}},
        {"platform": {"fhir_base_url": "http://localhost:1/fhir"}},
        {"login": LOGIN},
        {"login": LOGIN | {"client_secret": "b",
                           "redirect_uri": "https://x/behind/auth/callback"}},
        {"audit": {"sink": "file", "path": "/x"}},
        {"audit": REPOSITORY | {"fhir_credential": "default", "fhir_profile": "uz-core"}},
        {"audit": REPOSITORY | {"fhir_endpoint": "http://127.0.0.1:1/fhir"}},
        {"audit": REPOSITORY | {"fhir_endpoint": "http://10.0.0.1/fhir"},
         "platform": {"allow_plaintext": True}},
        {"login": LOGIN | {"extra_params": {"claims": "organization", "audience": "x"}}},
        {"listen": {"base_path": "/auth"}},
        {"admin": {"operators": [{"name": n, "password_file": "/x"} for n in "ab"]}},
        {"listen": {"base_path": "/authority"}, "login": LOGIN},
        {"callers": [CALLER], "credentials": {"default": {"client_id": "a",
         "client_secret": "b", "auth_method": "client_secret_basic"}}},
    ],
)  # fmt: skip
def test_valid_settings_violate_no_rule(settings: dict[str, Any]) -> None:
    assert findings(settings) == {}


def test_a_login_needs_an_authorization_endpoint_or_an_issuer() -> None:
    custom = {"environment": "custom", "platform": {"fhir_base_url": "https://x"}, "login": LOGIN}
    sso = {"token_url": "https://sso.clinic.uz/token"}
    assert findings({**custom, "sso": sso}) == {"sso.authorize_url": "is missing"}
    assert findings({**custom, "sso": {**sso, "issuer": "https://sso.clinic.uz/"}}) == {}


@pytest.mark.parametrize("name", ["anonymous", "session", "Session", "others"])
def test_callers_cannot_have_reserved_names(name: str) -> None:
    assert list(findings({"callers": [{**CALLER, "name": name}]})) == ["callers[0].name"]


def test_reserved_names_are_those_that_the_gateway_writes() -> None:
    unknown = Exchange.__dataclass_fields__["caller"].default
    assert {ANONYMOUS.name, SESSION, OTHERS.strip("()"), unknown} == RESERVED_CALLERS


def test_a_user_name_contains_no_colon() -> None:
    """`a:b` with `c` would be `a` with `b:c` (RFC 7617)."""
    basic = {"username": "a:b", "password": "c"}
    found = findings({"callers": [{"name": "lab", "basic_auth": basic}]})
    assert found == {"callers[0].basic_auth.username": "holds a colon"}


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"listen": {"address": "0.0.0.0:8080"}}, "listen.address"),
        ({"listen": {"address": "[::]:8080"}}, "listen.address"),
        ({"listen": {"address": "gateway.clinic.uz:80"}}, "listen.address"),
        ({"admin": {"address": "127.0.0.1:8080"}}, "admin.address"),
        ({"listen": {"address": "unix:/run/x", "reuse_port": True}}, "listen.reuse_port"),
        ({"admin": {"address": "0.0.0.0:8080"}}, "admin.address"),
        ({"platform": {"fhir_base_url": "http://10.0.0.1/fhir"}}, "platform.fhir_base_url"),
        ({"sso": {"token_url": "http://sso.clinic.uz/token"}}, "sso.token_url"),
        ({"sso": {"authorize_url": "http://sso.clinic.uz"}}, "sso.authorize_url"),
        ({"sso": {"issuer": "http://sso.clinic.uz"}}, "sso.issuer"),
        ({"credentials": {}}, "credentials"),
        ({"credentials": {"lab": {"client_id": "a", "client_secret": "b"}}}, "credentials.default"),
        (default(), "credentials.default.client_secret"),
        (default(auth_method="private_key_jwt"), "credentials.default.private_key_file"),
        (default(client_secret="b", private_key_file="/k", auth_method="private_key_jwt"),
         "credentials.default.client_secret"),
        (default(client_secret="b", private_key_file="/k"),
         "credentials.default.private_key_file"),
        (default(client_secret="b", extra_params={"grant_type": "password"}),
         "credentials.default.extra_params.grant_type"),
        (default(client_secret="b", client_secret_file="/s"), "credentials.default.client_secret"),
        ({"callers": [CALLER, CALLER]}, "callers[1].name"),
        ({"callers": [{**CALLER, "credential": "none"}]}, "callers[0].credential"),
        ({"callers": [{**CALLER, "api_key": "k"}]}, "callers[0].api_key"),
        ({"admin": {"operators": [{"name": "a"}]}}, "admin.operators[0].password"),
        ({"admin": {"operators": [{"name": "a", "password": p} for p in "xy"]}},
         "admin.operators[1].name"),
        ({"audit": {"sink": "off"}, "outbox": {"reveal": True}}, "outbox.reveal"),
        ({"callers": [{"name": "a", "basic_auth": {"username": "a"}}]},
         "callers[0].basic_auth.password"),
        ({"callers": [{"name": "a", "client_cert_names": ["a"]}]}, "callers[0].client_cert_names"),
        ({"listen": {"tls": {"cert_file": "/c"}}}, "listen.tls.key_file"),
        ({"listen": {"tls": {"key_file": "/c"}}}, "listen.tls.cert_file"),
        ({"listen": {"tls": {"client_ca_file": "/c"}}}, "listen.tls.client_ca_file"),
        ({"platform": {"client_cert_file": "/c"}}, "platform.client_key_file"),
        ({"audit": {"sink": "file"}}, "audit.path"),
        ({"audit": {"sink": "syslog"}}, "audit.syslog_url"),
        ({"audit": {"fhir_profile": "uz-core"}}, "audit.fhir_profile"),
        ({"audit": {"fhir_endpoint": "https://x/fhir"}}, "audit.fhir_endpoint"),
        ({"audit": REPOSITORY | {"sink": "off"}}, "audit.fhir_endpoint"),
        ({"audit": REPOSITORY | {"fhir_endpoint": "http://x/fhir"}}, "audit.fhir_endpoint"),
        ({"audit": {"fhir_credential": "default"}}, "audit.fhir_credential"),
        ({"audit": REPOSITORY | {"fhir_credential": "other"}}, "audit.fhir_credential"),
        ({"audit": {"fhir_ca_file": "/c"}}, "audit.fhir_ca_file"),
        ({"login": {"enabled": True, "redirect_uri": "https://x/auth/callback"}},
         "login.client_id"),
        ({"login": {"enabled": True, "client_id": "a"}}, "login.redirect_uri"),
        ({"login": LOGIN | {"redirect_uri": "http://gateway.clinic.uz/auth/callback"}},
         "login.redirect_uri"),
        ({"login": LOGIN | {"redirect_uri": "https://x/callback"}}, "login.redirect_uri"),
        ({"login": LOGIN | {"auth_method": "private_key_jwt"}}, "login.private_key_file"),
        ({"login": LOGIN | {"private_key_file": "/k"}}, "login.private_key_file"),
        ({"login": LOGIN | {"auth_method": "private_key_jwt", "private_key_file": "/k",
                            "client_secret_file": "/s"}}, "login.client_secret_file"),
        *(
            ({"login": LOGIN | {"extra_params": {name: "x"}}}, f"login.extra_params.{name}")
            for name in (
                *("client_id", "redirect_uri", "response_type", "scope", "state", "nonce"),
                *("code", "code_challenge", "code_challenge_method", "code_verifier"),
                *("grant_type", "refresh_token", "client_secret", "client_assertion"),
                *("client_assertion_type", "response_mode", "request", "request_uri"),
                *("Client_ID", "STATE"),
            )
        ),
        ({"listen": {"base_path": "/auth/fhir"}, "login": LOGIN}, "listen.base_path"),
    ],
)  # fmt: skip
def test_a_rule_violation_names_its_setting(settings: dict[str, Any], key: str) -> None:
    assert list(findings(settings)) == [key]


def test_an_invalid_value_is_not_also_a_rule_violation(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("environment: dhp-playground\n"
                    "credentials: {default: {client_id: a, client_secret: ''}}\n"
                    "listen: {address: '0.0.0.0:8080', allow_anonymous: perhaps}\n")  # fmt: skip
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    keys = [problem.key for problem in caught.value.problems]
    assert sorted(keys) == ["credentials.default.client_secret", "listen.allow_anonymous"]


def problem_with(folder: Path, line: str) -> Problem:
    file = folder / "gateway.yaml"
    file.write_text(
        "environment: playground\n"
        "credentials: {default: {client_id: a, client_secret: b7Gh2k}}\n"
        f"{line}\n"
    )
    with pytest.raises(SettingsError) as caught:
        load_settings(file, {})
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize("field", ["user_header", "purpose_header"])
@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(
            (name, "already has a meaning")
            for name in ("Authorization", "Accept", "If-Match", "X_API_KEY")
        ),
        *(
            (name, "already has a meaning")
            for name in ("content-type", "Prefer", "Host", "Connection")
        ),
        *((name, "is not the name") for name in ("", "X User", "X-User:", "Имя", "x" * 65)),
    ],
)
def test_user_and_purpose_headers_cannot_be_forwarded_fields(
    tmp_path: Path, field: str, name: str, fault: str
) -> None:
    problem = problem_with(
        tmp_path, f"callers: [{{name: lab, networks: [10.0.0.0/8], {field}: '{name}'}}]"
    )
    assert problem.key == f"callers[0].{field}"
    assert fault in str(problem)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *(
            (each, "that the gateway decides about")
            for each in (
                *("Authorization", "Cookie", "X-Api-Key", "Host", "Via", "Proxy", "Forwarded"),
                *("X-HTTP-Method-Override", "X_Rewrite_URL", "x.forwarded.for", "X-Request-Id"),
                *("Content-Length", "Transfer-Encoding", "Connection", "TE", "Expect", "Origin"),
                *("Proxy-Authorization", "X-Requested-With", "X_Provenance", "If_None_Exist"),
                *("Sec-Fetch-Site", "x-security-context", "Max-Forwards"),
                *("X-Method-Override", "X-Host", "Keep-Alive", "Trailer", "Upgrade"),
            )
        ),
        *(
            (each, "covers a header")
            for each in (
                *("X-*", "x-*", "X*", "X-Forwarded-Fo*", "X-Original-My-*", "X_Http*", "Te*"),
            )
        ),
        *(
            (each, "not the name of a header")
            for each in ("*", "", "X On Behalf", "X-Lab:", "X-*-Lab", "X-Lab-**", "-Lab", "X" * 65)
        ),
    ],
)
def test_reserved_fields_cannot_be_forwarded(tmp_path: Path, name: str, fault: str) -> None:
    problem = problem_with(tmp_path, f"platform: {{forward_headers: [X-Lab-Number, '{name}']}}")
    assert problem.key == "platform.forward_headers[1]"
    assert fault in str(problem)


def test_other_fields_can_be_forwarded_by_name_and_pattern() -> None:
    names = ["X-Lab-Number", "X-Hospital-*", "X_Old", "X.Dotted", "X-Auth-Token", "SOAPAction"]
    names += ["X-Originator", "X-On-Behalf-Of", "Hospital*", "X-Forwarder", "X-Hostname", "From"]
    assert findings({"platform": {"forward_headers": names}}) == {}


def test_user_and_purpose_need_different_headers() -> None:
    callers = [{**CALLER, "user_header": "X-User", "purpose_header": "x-user"}]
    assert findings({"callers": callers}) == {
        "callers[0].purpose_header": "is the same as user_header"
    }
    callers = [{**CALLER, "user_header": "X-Remote-User", "purpose_header": "X-Purpose"}]
    assert findings({"callers": callers}) == {}
