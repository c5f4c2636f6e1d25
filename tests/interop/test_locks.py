"""The lock files of the third-party software pin what is fetched and name no place for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def test_npm_lock_pins_every_package_without_an_address() -> None:
    """Each package has a hash, and no `resolved` address ties the lock to one registry."""
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    fetched = [package for path, package in packages.items() if path]

    assert len(fetched) > 10
    assert all(package["integrity"].startswith("sha512-") for package in fetched)
    assert not [package for package in fetched if "resolved" in package]


@pytest.mark.parametrize("name", ["clients", "fhirstarter", "sekmet"])
def test_python_lock_has_a_hash_for_every_package_and_no_address(name: str) -> None:
    """Each requirement of a lock carries hashes, and there is no index in it."""
    lock = (HERE / f"{name}.lock").read_text()
    requirements = [block for block in lock.replace("\\\n", " ").splitlines() if block.strip()]

    assert len(requirements) > 10
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)
    assert "://" not in lock
