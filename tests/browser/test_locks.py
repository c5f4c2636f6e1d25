"""The lock file of what drives the browser pins what is fetched and names no place for it."""

from __future__ import annotations

import json
from pathlib import Path


def test_the_lock_pins_every_package_without_an_address() -> None:
    """Each package has a hash, and no `resolved` address ties the lock to one registry."""
    lock = Path(__file__).parent / "package-lock.json"
    packages = json.loads(lock.read_text())["packages"]
    fetched = [package for path, package in packages.items() if path]
    assert len(fetched) > 10
    assert all(package["integrity"].startswith("sha512-") for package in fetched)
    assert not [package for package in fetched if "resolved" in package]
