"""From file and environment to settings, or to every problem at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.config.loader import SettingsError, load_settings
from gateway.config.problems import Problem
from gateway.config.settings import Settings

SECRET = "hunter2-s3cret"
PLAIN = "environment: dhp-playground\n"
CREDENTIALS = "credentials: {default: {client_id: a, client_secret_file: /run/s}}\n"


def read(tmp_path: Path, text: str, environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of a YAML text; one that names no environment means the playground."""
    file = tmp_path / "gateway.yaml"
    file.write_text(text, encoding="utf-8")
    usual = {} if "enviro" in text else {"DHP_GATEWAY_ENVIRONMENT": "dhp-playground"}
    return load_settings(file, {**usual, **(environ or {})})


def problems(
    tmp_path: Path, text: str, environ: Mapping[str, str] | None = None
) -> dict[str, Problem]:
    with pytest.raises(SettingsError) as caught:
        read(tmp_path, text, environ)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(caught.value.problems)
    keys = [problem.key for problem in caught.value.problems]
    assert len(keys) == len(set(keys)), f"complained about twice: {keys}"
    return {problem.key: problem for problem in caught.value.problems}


def test_an_environment_and_a_credential_are_all_that_must_be_given(tmp_path: Path) -> None:
    settings = read(tmp_path, f"{PLAIN}{CREDENTIALS}")
    assert settings.environment == "dhp-playground"
    assert str(settings.listen.address) == "127.0.0.1:8080"
    assert settings.listen.base_path == "/fhir"
    assert settings.platform.fhir_base_url == "https://playground.dhp.uz/fhir"
    assert settings.sso.token_url == "https://playground.dhp.uz/sso/oauth/token"
    assert settings.sso.authorize_url == "https://playground.dhp.uz/sso"
    assert settings.limits.max_body_bytes == 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("environment", "base", "token_url"),
    [
        ("playground", "https://playground.medcore.uz/fhir", "https://sso.medcore.uz/oauth/token"),
        ("production", "https://fhir.medcore.uz", "https://sso.medcore.uz/oauth/token"),
        (
            "dhp-playground",
            "https://playground.dhp.uz/fhir",
            "https://playground.dhp.uz/sso/oauth/token",
        ),
        ("dhp-production", "https://fhir.dhp.uz", "https://sso.dhp.uz/oauth/token"),
    ],
)
def test_each_environment_has_its_urls(
    tmp_path: Path, environment: str, base: str, token_url: str
) -> None:
    settings = read(tmp_path, f"environment: {environment}\n{CREDENTIALS}")
    assert settings.platform.fhir_base_url == base
    assert settings.sso.token_url == token_url


def test_a_configured_url_overrides_the_environment(tmp_path: Path) -> None:
    text = f"{CREDENTIALS}platform: {{fhir_base_url: 'https://fhir.clinic.uz/r5/'}}\n"
    settings = read(tmp_path, text)
    assert settings.platform.fhir_base_url == "https://fhir.clinic.uz/r5"
    assert settings.sso.token_url == "https://playground.dhp.uz/sso/oauth/token"


def test_a_null_url_is_that_of_the_environment(tmp_path: Path) -> None:
    text = f"{CREDENTIALS}sso: {{token_url: null, authorize_url: null}}\n"
    assert read(tmp_path, text) == read(tmp_path, CREDENTIALS)


@pytest.mark.parametrize("environment", ["dhp-playground", "dhp-production"])
def test_dhp_environments_list_unfiltered_parameters(tmp_path: Path, environment: str) -> None:
    text = f"{CREDENTIALS}environment: {environment}\n"
    unfiltered = read(tmp_path, text).fhir.unfiltered
    assert sum(map(len, unfiltered.values())) == 11
    assert unfiltered["Procedure"] == ("date", "status")
    given = read(tmp_path, f"{text}fhir: {{unfiltered: {{Task: [status]}}, search_guard: block}}\n")
    assert given.fhir.unfiltered == {"Task": ("status",)}
    variable = {"DHP_GATEWAY_FHIR__UNFILTERED": '{"Task":["code"]}'}
    assert read(tmp_path, text, variable).fhir.unfiltered == {"Task": ("code",)}
    assert read(tmp_path, f"{CREDENTIALS}environment: playground\n").fhir.unfiltered == {}


@pytest.mark.parametrize("environment", ["environment: custom", "# no environment"])
def test_without_an_environment_both_urls_are_required(tmp_path: Path, environment: str) -> None:
    found = problems(tmp_path, f"{environment}\n{CREDENTIALS}")
    assert set(found) == {"platform.fhir_base_url", "sso.token_url"}
    assert all("dhp-playground" in problem.hint for problem in found.values())
    found = problems(tmp_path, f"{environment}\n{CREDENTIALS}sso: {{token_url: 'https://x'}}\n")
    assert set(found) == {"platform.fhir_base_url"}


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    text = f"""
listen:
  adress: 127.0.0.1:1
  base_path: fhir
platform: {{connect_timeout: -1, response_timeout: 5s, max_connections: 1.5}}
credentials:
  default: {{client_id: 17, client_secret: {SECRET}, client_secret_file: /x}}
  lab: {{client_id: b}}
audit: {{rotate_bytes: 16 miB, on_failure: stop}}
log: {{level: loud}}
rewrite: {{enabled: yes}}
retry: {{}}
"""
    found = problems(tmp_path, text, {"DHP_GATEWAY_LIMITS__MAX_HEADER": "5"})
    assert set(found) == {
        "listen.adress",
        "listen.base_path",
        "platform.connect_timeout",
        "platform.response_timeout",
        "platform.max_connections",
        "credentials.default.client_id",
        "credentials.default.client_secret",
        "credentials.lab.client_secret",
        "audit.rotate_bytes",
        "audit.on_failure",
        "log.level",
        "rewrite.enabled",
        "retry",
        "DHP_GATEWAY_LIMITS__MAX_HEADER",
    }


@pytest.mark.parametrize("group", ["platform", "sso"])
def test_an_empty_section_reports_its_required_settings(tmp_path: Path, group: str) -> None:
    text = f"environment: custom\n{CREDENTIALS}{group}:\n  # all in comments\n"
    assert set(problems(tmp_path, text)) == {"platform.fhir_base_url", "sso.token_url"}


# What stands in the file, and the keys of all problems with it, in their order.
MISSPELLED = {
    # The group is there, too.
    "platfrom: {}\nplatform: {client_cert_file: /x, proxy_url: 5, ca_fil: 1}": (
        *("platform.ca_fil", "platfrom", "platform.proxy_url", "platform.client_key_file"),
    ),
    "platfrom: {}\nplatform: {fhir_base_url: 'http://10.0.0.1'}": (
        *("platfrom", "platform.fhir_base_url"),
    ),
    # What is below it is not examined.
    "platfrom: {connect_timeout: -1, client_cert_file: /x}": ("platfrom",),
    "listen: {adress: '0.0.0.0:8080'}": ("listen.adress",),
    # What is missing without it is a problem as well.
    "listen: {address: '0.0.0.0:8080', allow_anonimous: true}": (
        *("listen.allow_anonimous", "listen.address"),
    ),
    "lisen: {base_path: x}\nlistn: {base_path: x}": ("lisen", "listn"),
    "nothing_like_it: {connect_timeout: -1}": ("nothing_like_it",),
}


@pytest.mark.parametrize("text", MISSPELLED)
def test_a_misspelled_setting_hides_no_other_problem(tmp_path: Path, text: str) -> None:
    for beside in ("", "retries: {max_attempts: 0}\n"):
        with pytest.raises(SettingsError) as caught:
            read(tmp_path, f"{PLAIN}{CREDENTIALS}{beside}{text}\n")
        keys = sorted(problem.key for problem in caught.value.problems)
        assert keys == sorted([*MISSPELLED[text], *(["retries.max_attempts"] if beside else [])])
        assert all("line" in problem.source for problem in caught.value.problems)


def test_a_misspelled_environment_hides_no_other_problem(tmp_path: Path) -> None:
    text = "environment: dhp-playgroun\n"
    found = problems(tmp_path, f"{text}{CREDENTIALS}platform: {{client_cert_file: /x}}\n")
    assert set(found) == {"environment", "platform.client_key_file"}


@pytest.mark.parametrize(
    ("text", "key", "said"),
    [
        (
            f"{CREDENTIALS}listen:\n  adress: 127.0.0.1:1\n",
            "listen.adress",
            "is not a known key (line 3). Did you mean address?",
        ),
        (
            f"{CREDENTIALS}fhir_base_url: https://x\n",
            "fhir_base_url",
            "is not a known key (line 2). Did you mean platform.fhir_base_url?",
        ),
        (
            "credentials: {default: {client_id: a, client_secret_file: /x, scop: b}}",
            "credentials.default.scop",
            "is not a known key (line 1). Did you mean scope?",
        ),
        # A client id of digits must be quoted, else leading zeros would be lost.
        (
            "credentials: {default: {client_id: 017, client_secret_file: /x}}",
            "credentials.default.client_id",
            "must be text (line 1). Put it in quotes.",
        ),
        (f"{CREDENTIALS}log:\n  level: info\n  level: debug\n", "log.level", "line 4"),
        (f"{CREDENTIALS}listen: {{address: !!python/object:os.system x}}\n", "listen.address", ""),
        (f"{CREDENTIALS}rewrite: {{aliases: &a [*a]}}\n", "rewrite.aliases[0]", "refers to itself"),
        *((text, None, "is not a group of keys") for text in ("- a\n", "just text\n", "17\n")),
    ],
)
def test_a_problem_names_its_key_its_line_and_a_remedy(
    tmp_path: Path, text: str, key: str | None, said: str
) -> None:
    ((found, problem),) = problems(tmp_path, text).items()
    assert key is None or found == key
    assert said in str(problem)


@pytest.mark.parametrize("name", ["CLIENT_SECRET", "CLIENT_SECRET_FILE"])
@pytest.mark.parametrize("value", ["", " ", "null"])
def test_an_empty_variable_is_a_problem(tmp_path: Path, name: str, value: str) -> None:
    variable = f"DHP_GATEWAY_CREDENTIALS__DEFAULT__{name}"
    (problem,) = problems(tmp_path, f"{PLAIN}{CREDENTIALS}", {variable: value}).values()
    assert problem.key == f"credentials.default.{name.lower()}"
    assert problem.source == variable
    blank = name == "CLIENT_SECRET_FILE" and value == " "
    assert problem.message == ("is not a path" if blank else "is empty")
    assert "set " in problem.hint


def test_off_is_a_string(tmp_path: Path) -> None:
    settings = read(tmp_path, f"{CREDENTIALS}audit: {{sink: off}}\nfhir: {{search_guard: off}}\n")
    assert settings.audit.sink == "off"
    assert settings.fhir.search_guard == "off"


def test_an_empty_section_has_its_defaults(tmp_path: Path) -> None:
    settings = read(tmp_path, f"{CREDENTIALS}listen:\n  # address: x\n  tls:\nlogin:\n")
    assert settings == read(tmp_path, CREDENTIALS)


def test_settings_are_frozen(tmp_path: Path) -> None:
    settings = read(tmp_path, CREDENTIALS)
    with pytest.raises(ValueError, match="frozen"):
        settings.environment = "custom"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"listen: [\npassword: {SECRET}", "line "),
        (f"listen:\n  a: 1\n b: {SECRET}\n", "line 3"),
        (f"client_secret: *{SECRET.replace('-', '')}\n", "line 1"),
        (f"a: &a {SECRET}\n---\nb: 1\n", "line 2"),
        (f"\t{SECRET}: 1", "line 1"),
    ],
)
def test_broken_yaml_is_one_problem_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    (problem,) = problems(tmp_path, text).values()
    assert "is not valid YAML" in problem.message
    assert problem.source.startswith(line)
    assert SECRET.replace("-", "") not in str(problem)


@pytest.mark.parametrize("depth", [20, 300, 900, 5000])
@pytest.mark.parametrize("way", ["[%s]", '{"a": %s}'], ids=["lists", "groups"])
def test_a_deeply_nested_value_is_a_problem(tmp_path: Path, way: str, depth: int) -> None:
    start, end = way.split("%s")
    deep = start * depth + end * depth if way[0] == "[" else start * depth + "1" + end * depth
    assert problems(tmp_path, f"{CREDENTIALS}callers: {deep}\n")
    assert "callers" in problems(tmp_path, CREDENTIALS, {"DHP_GATEWAY_CALLERS": deep})


def test_a_missing_file_is_a_problem(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(tmp_path / "none.yaml", {})
    (problem,) = caught.value.problems
    assert "no such file" in problem.message
    assert problem.key.endswith("none.yaml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x: " + b"y" * (4 * 1024 * 1024)])
def test_a_binary_or_oversized_file_is_a_problem(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_bytes(content)
    with pytest.raises(SettingsError):
        load_settings(file, {})


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert read(tmp_path, "\ufeff" + CREDENTIALS) == read(tmp_path, CREDENTIALS)


@pytest.mark.parametrize(
    "text",
    [
        f"credentials: {{default: {{client_id: a, client_secret: [{SECRET}]}}}}",
        f"credentials: {{default: {{client_id: [{SECRET}], client_secret_file: /x}}}}",
        f"credentials: {{default: {SECRET}}}",
        f"credentials: {SECRET}",
        f"{CREDENTIALS}platform: {{fhir_base_url: 'https://u:{SECRET}@host'}}",
        f"{CREDENTIALS}log: {{level: {SECRET}}}",
        f"{CREDENTIALS}store: {{url: 'redis://:{SECRET}@host/{SECRET}'}}",
    ],
)
def test_no_problem_repeats_a_value(tmp_path: Path, text: str) -> None:
    assert problems(tmp_path, text)


@pytest.mark.parametrize("value", [".inf", ".nan", "1e999", "true", "'5'", "null", "[]"])
def test_a_duration_is_a_finite_number(tmp_path: Path, value: str) -> None:
    assert "sso.timeout" in problems(tmp_path, f"{CREDENTIALS}sso: {{timeout: {value}}}")
