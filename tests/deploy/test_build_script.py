"""What `make image` asks of the builder and says when that fails; what is compiled in it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def make_image(
    folder: Path, builder: str, named: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs the script with a builder of ours that is `builder` in sh."""
    program = folder / "buildah"
    program.write_text(f"#!/bin/sh\n{builder}\n")
    program.chmod(0o755)
    inherited = {k: v for k, v in os.environ.items() if k not in {"BASE_IMAGE", "BUILD_IMAGE"}}
    path = f"{folder}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", PROJECT / "deploy/build-image.sh"],
        env={**inherited, "ENGINE": "buildah", "PATH": path, **named},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(("base", "hints"), [(None, True), ("registry.example/python", False)])
def test_a_base_that_cannot_be_had_comes_with_the_way_out(
    tmp_path: Path, base: str | None, *, hints: bool
) -> None:
    """Who has not named a base image is told that one may be named; the exit code is kept."""
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
        (
            {"BASE_IMAGE": "base", "BUILD_IMAGE": "full"},
            {"BASE_IMAGE=base", "BUILD_IMAGE=full"},
        ),
    ],
)
def test_it_is_built_in_the_base_unless_told_otherwise(
    tmp_path: Path, named: dict[str, str], arguments: set[str]
) -> None:
    """Who names a base of their own gets nothing from elsewhere for the build."""
    done = make_image(tmp_path, "printf '%s\\n' \"$@\"", named)
    assert done.returncode == 0, done.stderr
    assert {line for line in done.stdout.splitlines() if "_IMAGE=" in line} == arguments


@pytest.mark.parametrize("compiler", ["exit 0", "exit 1", None])
def test_without_a_compiler_the_image_is_made_all_the_same(
    tmp_path: Path, compiler: str | None
) -> None:
    """The build asks for machine code and its tools only where a trial of the compiler succeeds."""
    asks = re.search(r"tools=.*?fi; \\\n", (PROJECT / "Dockerfile").read_text(), re.DOTALL)
    assert asks
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\necho this-cc -pthread -I/usr/include\n")
    python.chmod(0o755)
    if compiler is not None:
        (tmp_path / "this-cc").write_text(f"#!/bin/sh\n{compiler}\n")
        (tmp_path / "this-cc").chmod(0o755)
    done = subprocess.run(
        ["sh", "-euc", asks[0] + 'echo "$tools"'],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    compiles = compiler == "exit 0"
    assert (tmp_path / "compile").exists() == compiles
    assert ("mypy" in done.stdout.strip().split("|")) == compiles
