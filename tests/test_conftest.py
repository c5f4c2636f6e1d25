"""The rule of tests/conftest.py that nothing skips in CI, seen from outside by running pytest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

MARKED = "import pytest\n@pytest.mark.skip(reason='no redis here')\ndef test_it(): pass\n"
BOTH = MARKED + "def test_inside(): pytest.skip('no redis here')\n"
MODULE = "import pytest\npytest.skip('no redis here', allow_module_level=True)\n"
KINDS = """import pytest
@pytest.mark.parametrize("reason", ["nginx is missing: make test-tools"] * 3 + ["needs root"] * 2)
def test_it(reason): pytest.skip(reason)
def test_more(): pytest.skip("Windows only")
"""
KILLS = "import os\ndef test_it(): os.abort()\ndef test_more(): pass\n"
FAILS = "import os\ndef test_it(): assert False\ndef test_more(): os._exit(9)\n"
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_it(): assert False\n"


def run_pytest(
    folder: Path, test: str, no_skips: str, options: str = "-rA"
) -> subprocess.CompletedProcess[str]:
    """Runs one test file in its own folder with a copy of the project's conftest."""
    shutil.copy(Path(__file__).with_name("conftest.py"), folder)
    (folder / "test_one.py").write_text(test)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:randomly", options],
        cwd=folder,
        env={**os.environ, "DHP_NO_SKIPS": no_skips},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("test", "no_skips", "ends"),
    [
        (BOTH, "1", "1 failed, 1 error"),
        (MODULE, "1", "1 error"),
        (MARKED, "but-root", "1 error"),
        (MARKED.replace("no redis here", "needs root"), "but-root", "1 skipped"),
        (BOTH, "", "2 skipped"),
        (EXPECTED_FAILURE, "1", "1 xfailed"),
    ],
    ids=["tests", "module", "not root", "root", "by default", "an expected failure"],
)
def test_a_skip_fails_the_run_and_gives_its_reason(
    tmp_path: Path, test: str, no_skips: str, ends: str
) -> None:
    """With DHP_NO_SKIPS; by default a test may skip, so that `make test` works anywhere."""
    result = run_pytest(tmp_path, test, no_skips)
    fails = "error" in ends
    assert (result.returncode in (1, 2)) is fails, result.stdout
    assert ends in result.stdout
    assert ("forbids skipping. " in result.stdout) is fails
    assert not fails or "no redis here" in result.stdout


def test_all_skips_are_told_in_one_line(tmp_path: Path) -> None:
    """How many there are, the command that installs what they lack, and how to see the reasons."""
    told = run_pytest(tmp_path, KINDS, "", "-rfE").stdout
    assert told.count("skipped:") == 1
    assert (
        "6 skipped: 3 lack a program (`make test-tools` installs all of them), 2 need root,"
        " 1 cannot run here. The reasons: make test TESTS=-rs\n"
    ) in told
    assert "nginx" not in told
    assert "nginx" in run_pytest(tmp_path, KINDS, "", "-rs").stdout


def test_a_failure_is_told_before_the_run_ends(tmp_path: Path) -> None:
    """A run that is cut short says which tests had failed, and why."""
    cut_short = run_pytest(tmp_path, FAILS, "")
    assert cut_short.returncode == 9
    _, named, why = cut_short.stdout.partition("\ntest_one.py::test_it\n")
    assert named
    assert "assert False" in why


def test_a_test_that_kills_its_process_ends_the_run(tmp_path: Path) -> None:
    """The run fails and names the test."""
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_one.py").write_text(KILLS)
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-n2", "--dist=loadscope"]
    killed = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert killed.returncode == 3, killed.stdout
    assert "test_one.py::test_it killed its process" in killed.stdout + killed.stderr
