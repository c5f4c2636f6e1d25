"""Fuzzes all targets at once for some time.

python tests/fuzz/run.py --seconds 3600

Inputs that break an invariant, take too long or too much memory are written to
`tests/fuzz/found/`, one file a problem, and the exit code is 1. To keep one as a test, fix its
cause and move it to `tests/fuzz/corpus/TARGET/`. What a run learns is stored in
`tests/fuzz/.work/`.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[1]
LOCK: Final = HERE / "requirements.lock"
ENVIRONMENT: Final = HERE / f".venv-atheris-{sys.version_info.major}.{sys.version_info.minor}"
# Most seconds of one input, and most MiB of the process.
_LONGEST_INPUT: Final = 10
_MEMORY: Final = 2048
_MAX_LENGTH: Final = 2048


class FuzzerUnavailableError(Exception):
    """Atheris cannot be installed here; the text says what was tried."""


@dataclass(frozen=True)
class Ended:
    """The result of one target's run."""

    target: str
    exit_code: int
    output: str
    found: tuple[Path, ...]

    @property
    def failed(self) -> bool:
        """Return whether the run found a problem, or could not run."""
        return self.exit_code != 0 or bool(self.found)


def environment() -> Path:
    """Return the interpreter of the fuzzer's environment, which is made from its lock.

    Raises `FuzzerUnavailableError`.
    """
    command = [".ci/tools", str(ENVIRONMENT), str(LOCK)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FuzzerUnavailableError(f"{' '.join(command)}\n{done.stderr[-500:]}")
    return ENVIRONMENT / "bin" / "python"


def start(python: Path, target: str, seconds: int, found: Path) -> subprocess.Popen[str]:
    """Start to fuzz one target; the inputs it learns have a directory for each target."""
    learned = HERE / ".work" / target
    learned.mkdir(parents=True, exist_ok=True)
    found.mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={_LONGEST_INPUT}",
        f"-rss_limit_mb={_MEMORY}",
        f"-max_len={_MAX_LENGTH}",
        f"-dict={HERE / 'http.dict'}",
        f"-artifact_prefix={found}/{target}-",
        "-print_final_stats=1",
    ]
    # The dependencies of the gateway are those of the interpreter that runs this file.
    paths = (str(ROOT), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return subprocess.Popen(
        [python, HERE / "fuzz.py", target, *options, learned, HERE / "corpus" / target],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=ROOT,
    )


def run(targets: list[str], seconds: int, found: Path) -> list[Ended]:
    """Fuzz the targets in parallel and return their results. Raises `FuzzerUnavailableError`."""
    python = environment()
    running = {target: start(python, target, seconds, found) for target in targets}
    ended = []
    for target, process in running.items():
        output, _ = process.communicate()
        files = tuple(sorted(found.glob(f"{target}-*")))
        ended.append(Ended(target, process.returncode, output, files))
    return ended


def main() -> int:
    """Fuzz and print the results. Return the exit code."""
    targets = sorted(path.name for path in (HERE / "corpus").iterdir())
    parser = argparse.ArgumentParser(description="Fuzzes the gateway's readers of foreign bytes.")
    parser.add_argument("--seconds", type=int, default=60, help="for each target, side by side")
    parser.add_argument("--target", choices=targets, action="append", help="only this one")
    arguments = parser.parse_args()
    try:
        ended = run(arguments.target or targets, arguments.seconds, HERE / "found")
    except FuzzerUnavailableError as error:
        sys.stdout.write(f"atheris cannot be installed: {error}\n")
        return 3
    for each in ended:
        done = [line for line in each.output.splitlines() if line.startswith("stat::number_of")]
        state = "FAILED" if each.failed else "fine"
        sys.stdout.write(f"{each.target}: {state} {' '.join(done)}\n")
        if each.failed:
            sys.stdout.write("\n".join((each.output[-4000:], *map(str, each.found), "")))
    return int(any(each.failed for each in ended))


if __name__ == "__main__":
    sys.exit(main())
