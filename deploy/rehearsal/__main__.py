"""Runs a release's workflow on this machine, step by step, and tries what it made.

    make release-rehearsal
    make release-rehearsal ARGS="--python 3.11 --tests tests/faults"

The steps are those of .github/workflows/release.yml, read from the file: one that it has and that
fails, or is not understood, ends the rehearsal. What needs GitHub has a stand-in, or is named as
left out. Each job works in a clone of its own, and each step in a file system of which only the
rehearsal's folder and this user's caches stay: nothing is installed. build/rehearsal/summary.md
says what ran, with sizes and sums.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from deploy.rehearsal import stand_ins, trials
from deploy.rehearsal.actions import ACTIONS, Place, StepError
from deploy.rehearsal.workflow import Job, Step, WorkflowError, filled_in, jobs_of
from gateway import __version__

ROOT = Path(__file__).resolve().parents[2]
WORKFLOW = ROOT / ".github/workflows/release.yml"
FOLDER = stand_ins.FOLDER
PROCESSORS = {"x86-64": "x86_64", "amd64": "x86_64", "arm64": "aarch64"}
VALUES = {
    "vars.IMAGE": "registry.example/dhp-gateway",
    "github.token": "none",
    "github.repository": "example/dhp-gateway",
}
NETWORK = re.compile(r"_proxy$|_ca_|_cert|^pip_|^uv_|^npm_config_", re.IGNORECASE)

# Steps that do here what they do on GitHub in another way.
INSTEAD = {
    ".venv-tools/bin/cibuildwheel --output-dir dist": (
        'PYTHONS=$PYTHONS_HERE sh deploy/compiled-wheels.sh dist\nsh "$TRY_WHEELS"',
        "compiled on this machine instead of in manylinux images, and tried as pyproject.toml says",
    ),
    "make test-tools": (
        ".ci/test-tools --missing",
        "nothing is installed here; what is missing is in the log",
    ),
}
# What says in the output that a step needs what this machine may lack.
EXCUSED = {"make audit": "NOT CHECKED: no database of vulnerabilities answers here"}

# Everything but the rehearsal's folder and caches is another file system's, gone with the step.
ENTER = """
mount -t tmpfs tmpfs /mnt
for each in opt usr etc; do
    mkdir -p /mnt/$each/up /mnt/$each/work
    layers=lowerdir=/$each,upperdir=/mnt/$each/up,workdir=/mnt/$each/work
    mount -t overlay overlay -o "$layers" /$each
done
[ "$1" = all ] || ip link set lo up
shift
exec "$@"
"""


@dataclass
class Line:
    """One line of the summary."""

    what: str
    seconds: float
    notes: list[str]


@dataclass
class Rehearsal:
    """The whole run, with what it has found out so far."""

    version: str
    interpreters: dict[str, str]
    tests: str
    bases: dict[str, str]
    commit: str
    lines: list[Line] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    def jobs(self) -> Iterator[Job]:
        """Yield the runs of jobs that this machine can do."""
        for job in jobs_of(WORKFLOW):
            named = job.matrix.get("processor", platform.machine())
            processor = PROCESSORS.get(named, named)
            python = job.matrix.get("python")
            if processor != platform.machine():
                self.left_out.append(f"{job.title}: this is {platform.machine()}")
            elif python and python not in self.interpreters:
                self.left_out.append(f"{job.title}: no Python {python} here")
            else:
                yield job

    def run(self, job: Job) -> None:
        folder = FOLDER / "jobs" / job.title.replace(" ", "-")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        places = folder, FOLDER / "artifacts", FOLDER / "attestations"
        place = Place(*places, self.commit, {}, self.interpreters)
        for step in job.steps:
            start = time.monotonic()
            print(f"--- {job.title}: {step.name}", flush=True)
            notes = self._do(job, step, place)
            name = f"{job.title}: {step.name}"
            self.lines.append(Line(name, time.monotonic() - start, notes))

    def _do(self, job: Job, step: Step, place: Place) -> list[str]:
        if step.script is not None:
            return self._script(job, step, place)
        if step.action not in ACTIONS:
            raise StepError(f"{step.action} is not known here")
        place.inputs = {name: self._filled(text, job) for name, text in step.inputs.items()}
        told = ACTIONS[step.action](place)
        if place.inputs:
            raise StepError(f"`with` has unknown names: {', '.join(place.inputs)}")
        return [told]

    def _filled(self, text: str, job: Job) -> str:
        known = VALUES | {f"matrix.{name}": value for name, value in job.matrix.items()}
        known |= job.outputs

        def value_of(name: str) -> str:
            if name not in known:
                raise StepError(f"${{{{ {name} }}}} is not known here")
            return known[name]

        return filled_in(text, value_of)

    def _script(self, job: Job, step: Step, place: Place) -> list[str]:
        written = self._filled(step.script or "", job)
        script, instead = INSTEAD.get(written.strip(), (written, ""))
        outputs = place.folder.with_name(f"{place.folder.name}-outputs")
        outputs.write_text("")
        given = {name: self._filled(text, job) for name, text in (job.env | step.env).items()}
        environment = self.environment(place.python) | given | {"GITHUB_OUTPUT": str(outputs)}
        file = place.folder.with_name(f"{place.folder.name}-step.sh")
        file.write_text(script)
        done, output = shell(file, place.folder, environment, own_network="127.0.0.1" in script)
        excuse = EXCUSED.get(written.strip())
        if done and not (excuse and excuse in output):
            raise StepError(f"exit code {done}\n{output[-3000:]}")
        for line in outputs.read_text().splitlines():
            name, _, value = line.partition("=")
            job.outputs[f"steps.{step.id}.outputs.{name}"] = value
        notes = FOLDER / "notes"
        told = notes.read_text().splitlines() if notes.exists() else []
        notes.unlink(missing_ok=True)
        return [*filter(None, [instead, excuse if done else ""]), *told]

    def environment(self, python: Path | None) -> dict[str, str]:
        """Return the variables of a step: nothing of this project's, and how to get packages."""
        kept = {name: value for name, value in os.environ.items() if NETWORK.search(name)}
        own = {str(ROOT / ".venv/bin"), str(Path(sys.executable).parent)}
        path = [each for each in os.environ["PATH"].split(":") if each not in own]
        # The stand-ins first: a step may install the very program that must not run.
        before = [str(stand_ins.PROGRAMS), *([f"{python}/bin"] if python else [])]
        environment = {
            "HOME": os.environ["HOME"],
            "LANG": "C.UTF-8",
            "CI": "1",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
            "PATH": ":".join([*before, *path]),
            # Should it run all the same, there is no index at this address.
            "UV_PUBLISH_URL": "http://127.0.0.1:9/",
            "GITHUB_REF_NAME": f"v{self.version}",
            "GITHUB_ACTOR": "rehearsal",
            "DHP_REHEARSAL": str(FOLDER),
            "PYTHONS_HERE": " ".join(self.interpreters.values()),
            "TRY_WHEELS": str(Path(__file__).with_name("try-wheels.sh")),
            **self.bases,
        }
        if self.tests:
            environment["TESTS"] = self.tests
        if level := os.environ.get("DHP_GATEWAY_OPTIMISATION"):
            environment["DHP_GATEWAY_OPTIMISATION"] = level
        return kept | environment


def shell(
    script: Path, folder: Path, environment: dict[str, str], *, own_network: bool
) -> tuple[int, str]:
    """Run a script as GitHub does; return its exit code and output, which goes to the log too.

    In a network of its own all ports are free, and nothing else is to be reached.
    """
    net, kind = (["--net"], "own") if own_network else ([], "all")
    enter = ["unshare", "--mount", "--propagation", "private", *net, "sh", "-euc", ENTER, "sh"]
    command = [*enter, kind, "bash", "--noprofile", "--norc", "-eo", "pipefail", str(script)]
    log = FOLDER / "log.txt"
    with log.open("a+b") as output:
        begin = output.seek(0, os.SEEK_END)
        output.write(f"--- {folder.name}: {script.read_text()}\n".encode())
        output.flush()
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
        output.seek(begin)
        return done.returncode, output.read().decode(errors="replace")


def make_stand_ins() -> None:
    """Write a program for each stand-in, and add uvx, which users have."""
    stand_ins.PROGRAMS.mkdir()
    for name in stand_ins.STAND_INS:
        program = stand_ins.PROGRAMS / name
        command = f"{sys.executable} -P -m deploy.rehearsal.stand_ins {name}"
        program.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {command} "$@"\n')
        program.chmod(0o755)
    (stand_ins.PROGRAMS / "uvx").symlink_to(ROOT / ".venv/bin/uvx")


def found_interpreters(wanted: str) -> dict[str, str]:
    """Return the Pythons of this machine by version; those of `wanted`, if that names some."""
    found = {}
    for version in wanted.split(",") if wanted else ("3.11", "3.12", "3.13", "3.14"):
        program = shutil.which(f"python{version}")
        ask = [program or "", "-c", "import sys; print(sys.executable)"]
        asked = program and subprocess.run(ask, capture_output=True, text=True, check=False)
        if asked and asked.returncode == 0:
            found[version] = asked.stdout.strip()
    return found


def last_commit() -> str:
    """Return the commit that is rehearsed; what is not committed takes no part."""
    line = ["git", "-C", str(ROOT), "rev-parse", "HEAD"]
    return subprocess.run(line, check=True, capture_output=True, text=True).stdout.strip()


def summary(rehearsal: Rehearsal, failure: str) -> str:
    """Return the summary as Markdown."""
    title = "FAILED" if failure else "passed"
    lines = [f"# Rehearsal of {rehearsal.version} at {rehearsal.commit[:12]}: {title}", ""]
    lines += ["| step | s | notes |", "| --- | ---: | --- |"]
    for line in rehearsal.lines:
        lines.append(f"| {line.what} | {line.seconds:.0f} | {'; '.join(line.notes)} |")
    lines += ["", "Left out:", "", *(f"* {each}" for each in rehearsal.left_out), ""]
    lines += ["| artifact | bytes | SHA-256 |", "| --- | ---: | --- |"]
    for file in sorted(trials.made(FOLDER)):
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        lines.append(f"| {file.name} | {file.stat().st_size:,} | {digest[:16]}… |")
    return "\n".join([*lines, "", failure])


def jobs_from(begin: str | None, jobs: list[Job]) -> list[Job]:
    """Return the jobs from the named one, or its first run, on. Raises `StepError` for no job."""
    if begin is None:
        return jobs
    if begin == "trials":
        return []
    for number, job in enumerate(jobs):
        if begin in (job.key, job.title):
            return jobs[number:]
    names = sorted({each for job in jobs for each in (job.key, job.title)})
    raise StepError(f"--from {begin}: there are {', '.join(names)}, and trials")


def main() -> int:
    parser = argparse.ArgumentParser(description="Rehearse a release on this machine.")
    parser.add_argument("--python", default="", help="versions, such as 3.11,3.13; default: all")
    parser.add_argument("--tests", default="", help="those of each wheel; default: the release's")
    parser.add_argument(
        "--from",
        dest="begin",
        help="a job, one of its runs (`archives 3.13 x86-64`), or `trials`: keep what is made",
    )
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        print("It needs root, to mount in a namespace of its own.", file=sys.stderr)
        return 2
    if not chosen.begin:
        shutil.rmtree(FOLDER, ignore_errors=True)
    shutil.rmtree(FOLDER / "trials", ignore_errors=True)
    shutil.rmtree(stand_ins.PROGRAMS, ignore_errors=True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    make_stand_ins()
    interpreters = found_interpreters(chosen.python)
    bases = stand_ins.bases()
    rehearsal = Rehearsal(__version__, interpreters, chosen.tests, bases, last_commit())
    failure = ""
    try:
        jobs = list(rehearsal.jobs())
        for job in jobs_from(chosen.begin, jobs):
            rehearsal.run(job)
        for trial in trials.TRIALS:
            start = time.monotonic()
            print(f"--- trial: {trial.name}", flush=True)
            told = trials.run(trial, FOLDER, rehearsal.version, rehearsal.environment(None), shell)
            rehearsal.lines.append(Line(f"trial: {trial.name}", time.monotonic() - start, told))
        trials.require_all(FOLDER)
    except (StepError, WorkflowError, RuntimeError, subprocess.CalledProcessError) as error:
        failure = f"{type(error).__name__}: {error}"
    finally:
        stand_ins.images_without_bases()
    text = summary(rehearsal, failure)
    (FOLDER / "summary.md").write_text(text)
    print(text)
    return 1 if failure else 0


if __name__ == "__main__":
    sys.exit(main())
