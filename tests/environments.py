"""Programs that tests run, and packages of others, each set of them from a lock file."""

from __future__ import annotations

import fcntl
import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="no ::1 here: IPv6 is switched off")


def run(
    command: Sequence[str | Path],
    standard_input: str = "",
    folder: Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        input=standard_input,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env=env,
    )


def output_of(command: Sequence[str | Path], standard_input: str = "") -> str:
    """Return what a program prints. Raises AssertionError with its output when it fails."""
    done = run(command, standard_input)
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def run_or_skip(
    reason: str,
    command: Sequence[str | Path],
    folder: Path = REPOSITORY,
    env: Mapping[str, str] | None = None,
) -> str:
    """Return what a program prints; skip with the reason when it fails."""
    done = run(command, folder=folder, env=env)
    if done.returncode != 0:
        pytest.skip(f"{reason}\n{done.stderr[-500:]}")
    return done.stdout


def cache_folder(name: str) -> Path:
    """Return a folder for what is made once for many runs; skip where none can be made."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = folder / "dhp-gateway" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError) as error:
        pytest.skip(f"XDG_CACHE_HOME has to name a folder, as there is no home folder: {error}")
    return folder


def load_module(path: Path) -> ModuleType:
    """Return a module that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def installed_program(name: str) -> str:
    """Return a program of a Debian package; else skip with the command that installs it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is missing: make test-tools")
    return found


def python_with_packages(lock: Path) -> Path:
    """Return the interpreter of the lock's environment, which is made once; else skip."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    environment = lock.with_name(f".venv-{lock.stem}-{version}")
    command: list[str | Path] = [".ci/tools", environment, lock]
    run_or_skip(f"{lock.stem} cannot be installed: {' '.join(map(str, command))}", command)
    return environment / "bin" / "python"


def node_with_packages(folder: Path) -> str:
    """Return the node program, with the packages of the folder's package-lock.json; else skip."""
    node, npm = installed_program("node"), installed_program("npm")
    installed = folder / "node_modules" / ".package-lock.json"
    lock = folder / "package-lock.json"
    # Tests in other processes may want the same.
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
            run_or_skip("the packages cannot be installed: make test-tools", [npm, "ci"], folder)
            installed.touch()
    return node


def maven_package(folder: Path) -> Path:
    """Return the folder's `target`, built once from its pom.xml; else skip."""
    installed_program("java")
    reason = f"Maven cannot make {folder}: make test-tools"
    run_or_skip(reason, [".ci/maven", "package", folder])
    return folder / "target"


def go_program(folder: Path) -> str:
    """Return the program of the folder's Go module; skip where it is not built."""
    found = folder / "target" / folder.name
    if not found.exists():
        pytest.skip(f"{folder.name} is not built, which takes minutes: make test-tools")
    return str(found)
