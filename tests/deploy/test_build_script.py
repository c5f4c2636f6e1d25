"""What `make image` says when the builder fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.parametrize(("base", "hints"), [(None, True), ("registry.example/python", False)])
def test_a_base_that_cannot_be_had_comes_with_the_way_out(
    tmp_path: Path, base: str | None, *, hints: bool
) -> None:
    """Who has not named a base image is told that one may be named; the exit code is kept."""
    builder = tmp_path / "buildah"
    builder.write_text("#!/bin/sh\necho 'no route to the registry' >&2\nexit 125\n")
    builder.chmod(0o755)
    environment = {**os.environ, "ENGINE": "buildah", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    environment.pop("BASE_IMAGE", None)
    if base is not None:
        environment["BASE_IMAGE"] = base
    done = subprocess.run(
        ["sh", PROJECT / "deploy/build-image.sh"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 125
    assert ("BASE_IMAGE=" in done.stderr) == hints
