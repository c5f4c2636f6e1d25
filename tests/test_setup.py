"""`.ci/venv`, which makes the environment."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.environments import run

ROOT = Path(__file__).parents[1]
# Prints its version, and cannot make an environment.
INTERPRETER = '#!/bin/sh\ncase $1 in --version) echo "Python 3.12.9" ;; -m) exit 1 ;; esac\n'


def set_up(folder: Path, **programs: str) -> subprocess.CompletedProcess[str]:
    """Run `.ci/venv` with only that interpreter, and programs by their text."""
    for tool in ("cat", "cksum", "rm", "sh"):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    for name, text in {"python": INTERPRETER, **programs}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    (folder / "lock").touch()
    line = [ROOT / ".ci" / "venv", folder / "venv", folder / "lock"]
    return run(line, env={"PATH": str(folder), "PYTHON": "python"})


@pytest.mark.parametrize(
    ("made_by", "lock", "why"),
    [
        ("Python 3.11.7", "4294967295 0", "made by Python 3.11.7 and this is Python 3.12.9"),
        ("Python 3.12.9", "1 1", "lock has changed"),
        ("Python 3.12.9", "4294967295 0", ""),
    ],
    ids=["another interpreter", "another lock file", "the same"],
)
def test_an_environment_that_is_made_anew_says_why(
    tmp_path: Path, made_by: str, lock: str, why: str
) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".installed").write_text(f"{made_by} {lock}")
    done = set_up(tmp_path)
    assert why in done.stderr
    assert (done.returncode == 0) is (not why)
    assert ("anew" in done.stderr) is bool(why)


def test_without_root_the_command_to_install_is_printed(tmp_path: Path) -> None:
    programs = {"id": "#!/bin/sh\necho 1000\n", "apt-get": "#!/bin/sh\nexit 100\n"}
    done = set_up(tmp_path, **programs)
    assert done.returncode == 1
    assert "Installing" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert "Debian, Ubuntu: sudo apt-get install python" in last
