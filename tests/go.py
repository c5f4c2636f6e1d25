"""Programs in Go, for the tests that run them: built once from the folder's go.mod and go.sum."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

# Where Go's own archive puts it, which is not in the path of every user.
_USUAL = Path("/usr/local/go/bin/go")


def go_program(folder: Path) -> str:
    """Return the program of the folder's main package, built if need be; else skip."""
    program = folder / "target" / folder.name
    if not _is_fresh(program):
        go = shutil.which("go") or (str(_USUAL) if _USUAL.exists() else None)
        if go is None:
            pytest.skip("go is missing: make test-tools")
        built = program.parent / str(os.getpid())
        command = [go, "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w"]
        done = subprocess.run(
            [*command, "-o", f"target/{built.name}/", "."],
            cwd=folder,
            env={**os.environ, "CGO_ENABLED": "0"},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            shutil.rmtree(built, ignore_errors=True)
            pytest.skip(f"{folder.name} cannot be built: make test-tools\n{done.stderr[-500:]}")
        for each in built.iterdir():
            each.replace(program.parent / each.name)
        built.rmdir()
    return str(program)


def _is_fresh(program: Path) -> bool:
    folder = program.parent.parent
    sources = [folder / "go.mod", folder / "go.sum", *folder.glob("*.go")]
    if not program.exists():
        return False
    return program.stat().st_mtime >= max(one.stat().st_mtime for one in sources)
