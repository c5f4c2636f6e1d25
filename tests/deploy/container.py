"""Builds the real Dockerfile without a container engine's daemon, and runs the image read-only.

The base image is this machine's own Debian or Ubuntu release with nothing but python3 and its venv
module, made once by debootstrap and kept in a cache folder outside the project.
DHP_TEST_COMPILED_IMAGE=1 adds a C compiler to it, so that the image is the compiled one; that takes
some minutes more. `make test-compiled` tests the compiled gateway itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.environments import cache_folder, output_of, run

PROJECT = Path(__file__).parents[2]
IMAGE = "localhost/dhp-gateway:test"
COMPILES = os.environ.get("DHP_TEST_COMPILED_IMAGE") == "1"
BASES = "localhost/dhp-gateway-base"
BASE_PACKAGES = "python3,python3-venv"
COMPILER_PACKAGES = ",python3-dev,gcc,libc6-dev"

# The image's root is mounted on itself so that it can be made read-only for this process alone.
ENTER = """
root=$1 user=$2
shift 2
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount --rbind /proc "$root/proc"
mount -o remount,bind,ro "$root"
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" env -i "$@"
"""


def missing() -> str:
    """Return why no image can be built here, with what to do about it; "" where it can be built."""
    programs = [name for name in ("buildah", "debootstrap") if shutil.which(name) is None]
    if programs:
        return f"{' and '.join(programs)} needed: make test-tools"
    return "" if os.geteuid() == 0 else "needs root"


@dataclass(frozen=True)
class Release:
    """A Debian or Ubuntu release as apt knows it on this machine."""

    suite: str
    mirror: str
    components: str


def this_release() -> Release:
    """Return the release that apt installs from here; with mirror "" debootstrap chooses one."""
    form = "$(REPO_URI) $(CODENAME) $(COMPONENT)"
    targets = output_of(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    rows = [row.split() for row in targets.splitlines() if row.startswith("http")]
    os_release = dict(
        shlex.split(line)[0].split("=", 1)
        for line in Path("/etc/os-release").read_text().splitlines()
        if "=" in line
    )
    suite = os_release["VERSION_CODENAME"]
    rows = [row for row in rows if row[1] == suite]
    mirror = rows[0][0] if rows else ""
    components = {row[2] for row in rows if row[0] == mirror} or {"main"}
    return Release(suite, mirror, ",".join(sorted(components)))


class Builder:
    """buildah with a separate store, configured to work inside containers and sandboxes too."""

    def __init__(self, folder: Path) -> None:
        # The default limits lie above what an unprivileged machine may set.
        limit = min(1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
        (folder / "containers.conf").write_text(
            f'[containers]\ndefault_ulimits = ["nofile={limit}:{limit}", "nproc=1024:1024"]\n'
        )
        (folder / "storage.conf").write_text(
            f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/graph"\nrunroot = "{folder}/run"\n'
        )
        self.environment = {
            **os.environ,
            "BUILDAH_ISOLATION": "chroot",
            "CONTAINERS_CONF": f"{folder}/containers.conf",
            "CONTAINERS_STORAGE_CONF": f"{folder}/storage.conf",
        }

    def call(self, *arguments: str) -> str:
        """Return what `buildah ARGUMENTS` prints.

        Raises RuntimeError with its output if it fails.
        """
        return self._run(["buildah", *arguments], {})

    def clean(self) -> None:
        """Remove everything but the base images, also what an interrupted run has left."""
        self.call("rm", "--all")
        for image in json.loads(self.call("images", "--json")):
            names = image.get("names") or []
            if not any(name.startswith((f"{BASES}:", f"{BASES}-cc:")) for name in names):
                self.call("rmi", "--force", image["id"])

    def base(self, release: Release, *, compiles: bool = COMPILES) -> str:
        """Return the name of a base image with these packages only; made when there is none.

        The name changes with the packages, so that a base with others is made anew.
        """
        name = f"{BASES}{'-cc' * compiles}:{release.suite}"
        if json.loads(self.call("images", "--json", "--filter", f"reference={name}")):
            return name
        container = self.call("from", "scratch")
        options = ["--variant=minbase", f"--include={BASE_PACKAGES}{COMPILER_PACKAGES * compiles}"]
        options += [f"--components={release.components}"]
        target = [release.suite, self.call("mount", container)]
        self._run(["debootstrap", *options, *target, *filter(None, [release.mirror])], {})
        self.call("umount", container)
        self.call("commit", "--quiet", "--rm", container, name)
        return name

    def build(self, base: str) -> None:
        """Build the project's Dockerfile on a base, as `make image` does but less optimised."""
        script = str(PROJECT / "deploy/build-image.sh")
        quicker = ["--build-arg", "OPTIMISATION=0"]
        self._run(
            ["sh", script, *quicker], {"ENGINE": "buildah", "IMAGE": IMAGE, "BASE_IMAGE": base}
        )

    def image(self, name: str = IMAGE) -> Image:
        facts = json.loads(self.call("inspect", "--type", "image", name))
        root = self.call("mount", self.call("from", "--pull-never", name))
        return Image(Path(root), facts["Docker"]["config"])

    def _run(self, command: Sequence[str], extra: Mapping[str, str]) -> str:
        done = run(command, env={**self.environment, **extra})
        if done.returncode:
            last = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
            raise RuntimeError(f"{shlex.join(command)} failed ({done.returncode}):\n{last}")
        return done.stdout.strip()


@dataclass(frozen=True)
class Image:
    """An image's files and its configuration as the builder wrote it."""

    root: Path
    config: Mapping[str, Any]

    def command(self, *arguments: str) -> list[str]:
        return [*self.config["Entrypoint"], *(arguments or self.config["Cmd"])]

    def start(
        self, command: Sequence[str], settings: Mapping[str, str], **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command in the image: its user and environment, read-only, on the host's network.

        `options` are those of Popen.
        """
        variables = [*self.config["Env"], *(f"{key}={value}" for key, value in settings.items())]
        enter = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", ENTER, "sh"]
        return subprocess.Popen(
            [*enter, str(self.root), self.config["User"], *variables, *command],
            stdin=subprocess.DEVNULL,
            text=True,
            **options,
        )

    def run(
        self, command: Sequence[str], settings: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self.start(command, settings, **pipes) as process:
            out, err = process.communicate()
        return subprocess.CompletedProcess(command, process.returncode, out, err)


@contextmanager
def built_image() -> Iterator[Image]:
    """Yield the built image, one run at a time, and remove all but the base image at the end."""
    folder = cache_folder("image-test")
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        builder = Builder(folder)
        builder.clean()
        try:
            builder.build(builder.base(this_release()))
            yield builder.image()
        finally:
            builder.clean()
