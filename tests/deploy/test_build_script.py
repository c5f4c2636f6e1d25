"""The arguments and errors of `make image`."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.environments import run

PROJECT = Path(__file__).parents[2]


def make_image(
    folder: Path, builder: str, named: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run the script with a builder that is the shell script `builder`."""
    program = folder / "buildah"
    program.write_text(f"#!/bin/sh\n{builder}\n")
    program.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if k not in {"BASE_IMAGE", "BUILD_IMAGE"}}
    path = f"{folder}:{os.environ['PATH']}"
    env = {**inherited, "ENGINE": "buildah", "PATH": path, **named}
    return run(["sh", PROJECT / "deploy/build-image.sh"], env=env)


@pytest.mark.parametrize(("base", "hints"), [(None, True), ("registry.example/python", False)])
def test_an_unavailable_base_image_is_explained(
    tmp_path: Path, base: str | None, *, hints: bool
) -> None:
    named = {} if base is None else {"BASE_IMAGE": base}
    done = make_image(tmp_path, "echo 'no route to the registry' >&2; exit 125", named)
    assert done.returncode == 125
    assert ("BASE_IMAGE=" in done.stderr) == hints


@pytest.mark.parametrize(
    ("named", "arguments"),
    [
        ({}, set()),
        ({"BASE_IMAGE": "base"}, {"BASE_IMAGE=base", "BUILD_IMAGE=base"}),
        ({"BUILD_IMAGE": "full"}, {"BUILD_IMAGE=full"}),
        ({"BASE_IMAGE": "base", "BUILD_IMAGE": "full"}, {"BASE_IMAGE=base", "BUILD_IMAGE=full"}),
    ],
)
def test_the_build_image_is_the_base_image_by_default(
    tmp_path: Path, named: dict[str, str], arguments: set[str]
) -> None:
    done = make_image(tmp_path, "printf '%s\\n' \"$@\"", named)
    assert done.returncode == 0, done.stderr
    assert {line for line in done.stdout.splitlines() if "_IMAGE=" in line} == arguments


@pytest.mark.parametrize("compiler", ["exit 0", "exit 1", None])
def test_the_image_is_compiled_with_a_working_compiler_only(
    tmp_path: Path, compiler: str | None
) -> None:
    asks = re.search(r"tools=.*?fi; \\\n", (PROJECT / "Dockerfile").read_text(), re.DOTALL)
    assert asks
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho this-cc -pthread -I/usr/include\n")
    python.chmod(0o755)
    if compiler is not None:
        (tmp_path / "this-cc").write_text(f"#!/bin/sh\n{compiler}\n")
        (tmp_path / "this-cc").chmod(0o755)
    line = ["sh", "-euc", asks[0] + 'echo "$tools"']
    done = run(line, folder=tmp_path, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 0, done.stderr
    compiles = compiler == "exit 0"
    assert (tmp_path / "compile").exists() == compiles
    assert ("mypy" in done.stdout.strip().split("|")) == compiles
