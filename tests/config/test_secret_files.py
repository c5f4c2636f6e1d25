"""Secrets that are given as files."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config.section import MAX_SECRET_BYTES, read_secret_file
from gateway.config.settings import Settings
from gateway.errors import StartError
from gateway.secret import MASK

KEY = "credentials.default.client_secret_file"


@pytest.mark.parametrize(
    ("content", "secret"),
    [
        (b"s3cret", "s3cret"),
        (b"s3cret\n", "s3cret"),
        (b"s3cret\r\n", "s3cret"),
        (b"\xef\xbb\xbfs3cret\n", "s3cret"),
        (b" s3cret \n", " s3cret "),
        (b"s3cret\n\n", "s3cret\n"),
    ],
)
def test_one_final_line_break_is_removed(tmp_path: Path, content: bytes, secret: str) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    assert read_secret_file(KEY, file).reveal() == secret


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"  \n", "empty"),
        (b"\xff\xff", "not UTF-8"),
        (b"s\0e\0c\0", "looks like UTF-16"),
        (b"\xff\xfeb\0a\0d", "not UTF-8"),
        (b"x" * (MAX_SECRET_BYTES + 1), "larger"),
    ],
)
def test_an_empty_binary_or_oversized_file_is_an_error(
    tmp_path: Path, content: bytes, why: str
) -> None:
    file = tmp_path / "secret"
    file.write_bytes(content)
    with pytest.raises(StartError, match=why) as caught:
        read_secret_file(KEY, file)
    assert str(caught.value).startswith(f"{KEY}: {file}: ")
    assert "xxx" not in str(caught.value)


def test_a_missing_file_or_a_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="no such file"):
        read_secret_file(KEY, tmp_path / "none")
    with pytest.raises(StartError, match="is a directory"):
        read_secret_file(KEY, tmp_path)


def test_a_changed_secret_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("one\n")
    settings = Settings.model_validate(
        {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret_file": str(file)}},
        }
    )
    secret = settings.credentials["default"].secret_ref("default")
    first = secret.read()
    file.write_text("two\n")
    second = secret.read()
    assert first is not None
    assert second is not None
    assert (first.reveal(), second.reveal()) == ("one", "two")


def test_every_configured_secret_is_listed() -> None:
    settings = Settings.model_validate(
        {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret": "s"}},
            "login": {"client_secret_file": "/l"},
            "outbox": {"encryption_key_file": "/o"},
            "callers": [
                {"name": "x"},
                {"name": "y", "api_key": "k", "basic_auth": {"username": "u", "password": "p"}},
            ],
        }
    )
    assert [source.key for source in settings.secret_refs()] == [
        "credentials.default.client_secret",
        "login.client_secret",
        "outbox.encryption_key",
        "callers[1].api_key",
        "callers[1].basic_auth.password",
    ]


def test_text_forms_of_the_settings_mask_secrets() -> None:
    settings = Settings.model_validate(
        {
            "environment": "dhp-playground",
            "credentials": {"default": {"client_id": "a", "client_secret": "hunter2"}},
            "store": {"url": "redis://:hunter2@h"},
        }
    )
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "hunter2" not in shown
    assert f"redis://:{MASK}@h:6379/0" in shown
