"""The lock files of the programs that judge the manifests pin what is fetched."""

from __future__ import annotations

import json

from tests.deploy.tools import HERE


def test_npm_lock_pins_every_package_without_an_address() -> None:
    """Each package has a hash, and no `resolved` address ties the lock to one registry."""
    packages = json.loads((HERE / "package-lock.json").read_text())["packages"]
    fetched = [package for path, package in packages.items() if path]
    assert fetched
    assert all(package["integrity"].startswith("sha512-") for package in fetched)
    assert not [package for package in fetched if "resolved" in package]


def test_python_lock_has_a_hash_for_every_package_and_no_address() -> None:
    """Each requirement carries hashes, and there is no index in the lock."""
    lock = (HERE / "validate.lock").read_text()
    requirements = [block for block in lock.replace("\\\n", " ").splitlines() if block.strip()]
    assert requirements
    assert all("==" in line and "--hash=sha256:" in line for line in requirements)
    assert "://" not in lock
