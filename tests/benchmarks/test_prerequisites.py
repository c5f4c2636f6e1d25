"""What the benchmark says where a program is missing."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROVIDE = "from benchmarks.prerequisites import {0}; {0}({1})"
MISSING = "no-such-load-generator"


def provide(function: str, *names: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Calls it in a process whose PATH has nothing but `path`."""
    code = PROVIDE.format(function, ", ".join(map(repr, names)))
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PATH": str(path)},
        capture_output=True,
        text=True,
    )


def test_without_apt_get_the_command_is_named(tmp_path: Path) -> None:
    """Where nothing can be installed, the message names what is missing and the command for it."""
    done = provide("provide_debian_programs", MISSING, path=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"The benchmark needs {MISSING}: "
        f"sudo apt-get install --yes --no-install-recommends {MISSING}\n"
    )


def test_where_apt_get_fails_the_command_is_named_too(tmp_path: Path) -> None:
    """A package that cannot be installed ends the benchmark before it measures anything."""
    called = tmp_path / "called"
    for name in ("apt-get", "sudo"):
        program = tmp_path / name
        program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$*" >>{called}\nexit 100\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = provide("provide_debian_programs", MISSING, path=tmp_path)
    assert done.returncode == 1
    assert f"sudo apt-get install --yes --no-install-recommends {MISSING}\n" in done.stderr
    assert f"install --yes --no-install-recommends {MISSING}\n" in called.read_text()


def test_a_program_of_others_that_cannot_be_built_is_named(tmp_path: Path) -> None:
    """The message has the command that failed, and how to measure without it."""
    done = provide("provide_java_program", MISSING, path=tmp_path)
    assert done.returncode == 1
    assert f"{MISSING} needs mvn" in done.stderr
    assert f"{MISSING} && mvn --quiet --batch-mode package\n" in done.stderr
    assert "make bench ARGS='--contenders gateway,envoy" in done.stderr


def test_nothing_is_installed_where_all_is_there(tmp_path: Path) -> None:
    """A program that is found is not asked for."""
    program = tmp_path / MISSING
    program.write_text("#!/bin/sh\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    done = provide("provide_debian_programs", MISSING, path=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
