"""Sizes and addresses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.value_types import InvalidValueError, ListenAddress, parse_address, parse_size
from gateway.field_values import is_host

UNITS = {"": 1, "B": 1, "kB": 1000, "MB": 10**6, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


@given(st.integers(0, 10**12), st.sampled_from(sorted(UNITS)), st.sampled_from(["", " "]))
def test_a_size_is_its_number_times_its_unit(number: int, unit: str, space: str) -> None:
    text = f"{number}{space}{unit}" if unit else str(number)
    assert parse_size(text) == number * UNITS[unit]


@pytest.mark.parametrize(
    "wrong", [-1, True, 1.5, None, "", "MiB", "16 miB", "1.5MiB", "-1", "1  KiB", "٣KiB", "1KiB\n"]
)
def test_an_invalid_size_is_rejected(wrong: object) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_size(wrong)
    assert "16MiB" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "address", "loopback"),
    [
        ("127.0.0.1:8080", ListenAddress("127.0.0.1", 8080), True),
        ("127.9.9.9:1", ListenAddress("127.9.9.9", 1), True),
        ("localhost:0", ListenAddress("localhost", 0), True),
        ("[::1]:9464", ListenAddress("::1", 9464), True),
        ("[::]:80", ListenAddress("::", 80), False),
        ("0.0.0.0:65535", ListenAddress("0.0.0.0", 65535), False),
        ("gateway.clinic.uz:80", ListenAddress("gateway.clinic.uz", 80), False),
        ("unix:/run/dhp.sock", ListenAddress(path="/run/dhp.sock"), True),
    ],
)
def test_valid_addresses(text: str, address: ListenAddress, loopback: bool) -> None:
    parsed = parse_address(text)
    assert parsed == address
    assert parsed.is_loopback is loopback
    assert str(parsed) == text


@pytest.mark.parametrize(
    "wrong",
    [
        "8080",
        ":8080",
        "host",
        "::1:80",
        "[::1]",
        "[127.0.0.1:80",
        "1.2.3.4:65536",
        "1.2.3.400:80",
        "a b:80",
        "unix:relative",
        "unix:",
        "unix:/" + "x" * 120,
        8080,
        None,
    ],
)
def test_an_invalid_address_is_rejected(wrong: object) -> None:
    with pytest.raises(InvalidValueError):
        parse_address(wrong)


@pytest.mark.parametrize("host", ["300.1.1.1", "1.2.3", "", "-x", "a..b", "x" * 254])
def test_a_mistyped_ip_address_is_no_host_name(host: str) -> None:
    assert not is_host(host)


def test_an_address_for_all_interfaces_is_reachable_on_loopback() -> None:
    assert str(parse_address("0.0.0.0:80").client_address) == "127.0.0.1:80"
    assert str(parse_address("[::]:80").client_address) == "[::1]:80"
    assert str(parse_address("10.0.0.1:80").client_address) == "10.0.0.1:80"
    assert str(parse_address("unix:/x").client_address) == "unix:/x"
