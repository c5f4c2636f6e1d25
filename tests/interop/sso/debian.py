"""Servers that are Debian packages."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True, slots=True)
class Package:
    """A package of .ci/system-packages, and a file that shows that it is installed."""

    name: str
    file: str

    def require(self) -> None:
        if not Path(self.file).exists():
            pytest.skip(f"{self.name} is missing: make test-tools")

    def version(self) -> str:
        """Return the version without Debian's own part; empty where the package is missing."""
        command = ["dpkg-query", "--show", "--showformat=${Version}", self.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError:
            return ""
        return done.stdout.partition("-")[0].partition("+")[0]

    def is_newer_than(self, version: str) -> bool:
        """Return whether a version after this one is installed."""
        return _numbers(self.version()) > _numbers(version)


def _numbers(version: str) -> list[int]:
    return [int(each) for each in version.split(".") if each.isdigit()]
