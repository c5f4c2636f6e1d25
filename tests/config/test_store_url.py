"""The URL of the shared store: what it may be, and that its password never shows."""

from __future__ import annotations

import pytest

from gateway.config.problems import InvalidValueError
from gateway.config.setting_urls import StoreLocation, parse_store_url
from gateway.secret import MASK, Secret

PASSWORD = "hunter2:/?#@"
QUOTED = "hunter2%3A%2F%3F%23%40"


@pytest.mark.parametrize(
    ("text", "location", "shown"),
    [
        ("memory://", StoreLocation(), "memory://"),
        ("redis://h", StoreLocation("redis", "h"), "redis://h:6379/0"),
        ("redis://H:1/2", StoreLocation("redis", "h", 1, database=2), "redis://h:1/2"),
        ("rediss://[::1]:1/", StoreLocation("rediss", "::1", 1), "rediss://[::1]:1/0"),
        (
            f"redis://:{QUOTED}@h",
            StoreLocation("redis", "h", password=Secret(PASSWORD)),
            f"redis://:{MASK}@h:6379/0",
        ),
        (
            f"redis://u%40:{QUOTED}@h",
            StoreLocation("redis", "h", username="u@", password=Secret(PASSWORD)),
            f"redis://u%40:{MASK}@h:6379/0",
        ),
        ("unix:///run/r.sock", StoreLocation("unix", path="/run/r.sock"), "unix:///run/r.sock"),
        (
            f"unix://u:{QUOTED}@/run/r.sock?db=3",
            StoreLocation(
                "unix", path="/run/r.sock", database=3, username="u", password=Secret(PASSWORD)
            ),
            f"unix://u:{MASK}@/run/r.sock?db=3",
        ),
        (
            "redis+sentinel://h/hospital",
            StoreLocation("redis", sentinels=(("h", 26379),), service="hospital"),
            "redis+sentinel://h:26379/hospital/0",
        ),
        (
            f"rediss+sentinel://u:{QUOTED}@a:1,[::1],b:2/the%20service/3",
            StoreLocation(
                "rediss",
                database=3,
                username="u",
                password=Secret(PASSWORD),
                sentinels=(("a", 1), ("::1", 26379), ("b", 2)),
                service="the service",
            ),
            f"rediss+sentinel://u:{MASK}@a:1,[::1]:26379,b:2/the%20service/3",
        ),
    ],
)
def test_valid_store_urls(text: str, location: StoreLocation, shown: str) -> None:
    parsed = parse_store_url(text)
    assert parsed == location
    assert str(parsed) == shown
    assert "hunter2" not in repr(parsed)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "redis:",
        "http://h",
        "valkey://h",
        "redis://",
        "redis://:hunter2@",
        "redis://h:hunter2",
        "redis://h:99999",
        "redis://h/hunter2",
        "redis://h/1/2",
        "redis://h?password=hunter2",
        "redis://h#hunter2",
        "redis://u:hunter2@h h",
        "redis://[hunter2",
        "unix://host/path",
        "unix://relative",
        "unix:///p?hunter2",
        "unix:///p?db=hunter2",
        "redis+sentinel://h",
        "redis+sentinel://h/",
        "redis+sentinel:///hospital",
        "redis+sentinel://:hunter2@h,/hospital",
        "redis+sentinel://h,b:hunter2/hospital",
        "redis+sentinel://h/hospital/hunter2",
        "redis+sentinel://h/hospital?db=hunter2",
        7,
        None,
    ],
)
def test_invalid_store_urls_are_reported_without_the_password(text: object) -> None:
    with pytest.raises(InvalidValueError) as caught:
        parse_store_url(text)
    assert "hunter2" not in caught.value.message + caught.value.hint
    assert caught.value.message
