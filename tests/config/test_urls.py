"""URLs and paths of the settings."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from gateway.config.problems import InvalidValueError
from gateway.config.setting_urls import (
    is_remote_plaintext,
    parse_base_path,
    parse_base_url,
    parse_endpoint_url,
    parse_origin,
    parse_proxy_url,
    parse_syslog_url,
)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("https://fhir.dhp.uz", "https://fhir.dhp.uz"),
        ("https://fhir.dhp.uz/", "https://fhir.dhp.uz"),
        ("HTTPS://Fhir.DHP.uz/Fhir/R5/", "https://fhir.dhp.uz/Fhir/R5"),
        ("http://[::1]:8090/fhir", "http://[::1]:8090/fhir"),
        ("https://host/a%20b", "https://host/a%20b"),
    ],
)
def test_a_base_url_loses_its_final_slash_and_the_case_of_its_host(given: str, kept: str) -> None:
    assert parse_base_url(given) == kept


@pytest.mark.parametrize(
    "wrong",
    [
        "fhir.dhp.uz",
        "ftp://fhir.dhp.uz",
        "https://",
        "https:///fhir",
        "https://user:s3cret@fhir.dhp.uz",
        "https://fhir.dhp.uz/fhir?x=s3cret",
        "https://fhir.dhp.uz/fhir?",
        "https://fhir.dhp.uz/fhir#s3cret",
        "https://fhir.dhp.uz:99999",
        "https://fhir.dhp.uz:x",
        "https://fhir.dhp.uz/a//b",
        "https://fhir.dhp.uz/a/../b",
        "https://fhir dhp.uz",
        "https://фхир.уз",
        "https://fhir.dhp.uz/\nHost: x",
        "https://[::1",
        "https://300.1.1.1/",
    ],
)
def test_an_invalid_url_is_rejected_without_showing_it(wrong: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_base_url(wrong)
    assert "s3cret" not in f"{caught.value.message} {caught.value.hint}"


def test_an_endpoint_keeps_its_final_slash() -> None:
    assert parse_endpoint_url("https://sso.dhp.uz/token/") == "https://sso.dhp.uz/token/"
    assert parse_endpoint_url("https://sso.dhp.uz/") == "https://sso.dhp.uz/"


@pytest.mark.parametrize("path", ["//api/oidc/token", "/api/oidc//token", "/a//", "///"])
def test_an_endpoint_keeps_a_doubled_slash(path: str) -> None:
    assert parse_endpoint_url(f"https://sso.clinic.uz{path}") == f"https://sso.clinic.uz{path}"
    with pytest.raises(InvalidValueError):
        parse_base_url(f"https://sso.clinic.uz/a/{path}/b")


@pytest.mark.parametrize("path", ["/a/../b", "//../b", "/./a", "/a//.."])
def test_dot_segments_in_an_endpoint_are_rejected(path: str) -> None:
    """Programs on the way would remove them."""
    with pytest.raises(InvalidValueError):
        parse_endpoint_url(f"https://sso.clinic.uz{path}")


@pytest.mark.parametrize(
    ("given", "kept"),
    [("/", ""), ("", ""), ("/fhir", "/fhir"), ("/fhir/", "/fhir"), ("/a/b-1.~_", "/a/b-1.~_")],
)
def test_a_base_path_has_no_final_slash(given: str, kept: str) -> None:
    assert parse_base_path(given) == kept


@pytest.mark.parametrize(
    "wrong", ["fhir", "//", "//fhir", "/a//b", "/a/../b", "/./a", "/a b", "/a?b", "/a%2fb", "/ф"]
)
def test_an_invalid_base_path_is_rejected(wrong: str) -> None:
    """Paths that decoding or normalising would change are refused."""
    with pytest.raises(InvalidValueError):
        parse_base_path(wrong)


@pytest.mark.parametrize(
    ("url", "plaintext"),
    [
        ("https://fhir.dhp.uz", False),
        ("http://127.0.0.1:8090/fhir", False),
        ("http://[::1]/fhir", False),
        ("http://localhost", False),
        ("http://localhost.evil.uz", True),
        ("http://10.0.0.1", True),
    ],
)
def test_plaintext_to_another_host_is_recognised(url: str, plaintext: bool) -> None:
    assert is_remote_plaintext(url) is plaintext


@pytest.mark.parametrize(
    ("parse", "wrong"),
    [
        (parse_proxy_url, "http://proxy:3128/path"),
        (parse_proxy_url, "https://proxy:3128"),
        (parse_syslog_url, "tls://host"),
        (parse_syslog_url, "http://host:514"),
        (parse_syslog_url, "udp://host:514/x"),
    ],
)
def test_proxy_and_syslog_urls_have_their_own_forms(
    parse: Callable[[str], str], wrong: str
) -> None:
    with pytest.raises(InvalidValueError):
        parse(wrong)


@pytest.mark.parametrize("parse", [parse_base_url, parse_endpoint_url, parse_origin])
@pytest.mark.parametrize(
    "wrong",
    ["fhir.dhp.uz/fhir", "ftp://fhir.dhp.uz", "https://", "http://x:99999", "http://1.2.3/"],
)
def test_http_is_not_suggested_for_other_hosts(parse: Callable[[str], str], wrong: str) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse(wrong)
    assert "http://" not in caught.value.message + caught.value.hint
    assert "write it as https://host" in caught.value.hint


@pytest.mark.parametrize("wrong", ["localhost:8090/fhir", "127.0.0.1:8090"])
def test_http_is_suggested_for_loopback(wrong: str) -> None:
    with pytest.raises(InvalidValueError, match="must begin with http:// or https://") as caught:
        parse_base_url(wrong)
    assert "write it as http://host" in caught.value.hint


def test_http_is_suggested_for_a_proxy() -> None:
    with pytest.raises(InvalidValueError, match="must begin with http://") as caught:
        parse_proxy_url("proxy.clinic.uz:3128")
    assert "write it as http://host" in caught.value.hint
