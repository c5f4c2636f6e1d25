"""Which settings file counts."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.loader import SettingsError, SettingsSource, search_paths

GOOD = "environment: dhp-playground\ncredentials: {default: {client_id: a, client_secret: b}}\n"


def test_the_order_of_sources(tmp_path: Path) -> None:
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    looked_at = [first, second]
    variable = {"DHP_GATEWAY_CONFIG": "/of/the/variable"}
    for file in looked_at:
        file.write_text(GOOD)
    find = SettingsSource.discover
    assert find(Path("/named"), variable, looked_at).path == Path("/named")
    assert find(None, variable, looked_at).path == Path("/of/the/variable")
    assert find(None, {"DHP_GATEWAY_CONFIG": ""}, looked_at).path == first
    first.unlink()
    assert find(None, {}, looked_at).path == second
    second.unlink()
    nothing = find(None, {}, looked_at)
    assert nothing.path is None
    assert str(nothing) == f"variables alone (no file at {first} or {second})"


def test_search_paths() -> None:
    assert search_paths({}) == (Path("/etc/dhp-gateway/gateway.yaml"), Path("gateway.yaml"))


@contextlib.contextmanager
def ordinary_user() -> Iterator[None]:
    """Root may read everything, and does for a moment without that."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder into which every user may look."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("kind", ["dangling link", "folder", "closed file", "closed folder"])
def test_an_unreadable_file_is_not_skipped(open_folder: Path, kind: str) -> None:
    """Settings of another file in its place would be a surprise."""
    folder, other = open_folder / "etc", open_folder / "other.yaml"
    folder.mkdir()
    file = folder / "gateway.yaml"
    other.write_text(GOOD)
    if kind == "dangling link":
        file.symlink_to(open_folder / "gone")
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_text(GOOD)
        (file if kind == "closed file" else folder).chmod(0)
    try:
        with ordinary_user(), pytest.raises(SettingsError, match="cannot be read") as caught:
            SettingsSource.discover(None, {}, [file, other]).load()
    finally:
        folder.chmod(0o700)
    assert caught.value.problems[0].key == str(file)


def test_utf_16_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """What PowerShell's `>` writes is UTF-16 with a byte order mark."""
    file = tmp_path / "gateway.yaml"
    for text in (f"\ufeff{GOOD}".encode("utf-16-le"), f"\ufeff{GOOD}".encode("utf-16-be")):
        file.write_bytes(text)
        assert SettingsSource(file, {}).load().credentials["default"].client_id == "a"
    file.write_bytes(GOOD.encode("utf-16-le"))
    with pytest.raises(SettingsError, match="looks like UTF-16") as caught:
        SettingsSource(file, {}).load()
    assert "UTF-8" in caught.value.problems[0].hint
