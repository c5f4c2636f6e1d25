"""Python packages of others, each lock file in an environment of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def python_with_packages(lock: Path) -> Path:
    """Return the interpreter of the lock's environment, which is made once; else skip."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = lock.with_name(f".venv-{lock.stem}-{version}")
    command = [".ci/tools", environment, lock]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(
            f"{lock.stem} cannot be installed: {' '.join(map(str, command))}\n{done.stderr[-500:]}"
        )
    return environment / "bin" / "python"
