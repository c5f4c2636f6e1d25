"""Java, for the tests that run programs written for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.doubles.processes import REPOSITORY


def java() -> str:
    """Return the java program; else skip."""
    program = shutil.which("java")
    if program is None:
        pytest.skip("java is missing: make test-tools")
    return program


def maven_package(folder: Path) -> Path:
    """Return the folder's `target`, built once from its pom.xml; else skip."""
    java()
    _maven("package", str(folder))
    return folder / "target"


def _maven(*arguments: str) -> str:
    command = [".ci/maven", *arguments]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"Maven cannot make {arguments[-1]}: make test-tools\n{done.stderr[-500:]}")
    return done.stdout.strip()
