"""Programs that a release's steps call, as far as this machine has no such thing.

`docker` is buildah with a store of its own, and runs an image without an engine; `gh`, signing in
and what joins both processors' images do only what needs no GitHub; `uv publish` uploads to an
index that is served here. What each leaves out is noted for the summary.

    python -m deploy.rehearsal.stand_ins PROGRAM ARGUMENT…
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.deploy.container import Builder, Image, this_release
from tests.deploy.tools import kubernetes_validate as validator
from tests.deploy.tools import unpacked_program

FOLDER = Path(__file__).resolve().parents[2] / "build/rehearsal"
PROGRAMS = FOLDER / "programs"
IMAGES = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dhp-gateway/rehearsal"


def note(text: str) -> None:
    """Keep a line for the summary."""
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"{text}\n")


def builder() -> Builder:
    """Return the store of images, which keeps its bases for the next rehearsal."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    return Builder(IMAGES)


def options(arguments: list[str], flags: set[str]) -> tuple[dict[str, list[str]], list[str]]:
    """Return the options before the first other argument, and the rest; `flags` take no value."""
    found: dict[str, list[str]] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        name = rest.pop(0)
        found.setdefault(name, []).append("" if name in flags else rest.pop(0))
    return found, rest


def buildah(*arguments: str) -> str:
    return builder().call(*arguments)


def docker(arguments: list[str]) -> int:
    """Do what the steps ask of docker."""
    verb, rest = arguments[0], arguments[1:]
    if verb not in VERBS:
        raise SystemExit(f"docker {verb} is not known here")
    return VERBS[verb](rest) or 0


def docker_login(_: list[str]) -> None:
    note("only on GitHub: signing in to the registry")
    sys.stdin.read()


def docker_push(arguments: list[str]) -> None:
    buildah("push", arguments[0], f"oci:{layout(arguments[0])}")
    note(f"pushed to a folder instead of the registry: {arguments[0].rpartition(':')[2]}")


def docker_load(arguments: list[str]) -> None:
    found, _ = options(arguments, set())
    file = FOLDER / "saved.tar"
    with gzip.open(found["--input"][0]) as packed, file.open("wb") as saved:
        shutil.copyfileobj(packed, saved)
    print("Loaded image", buildah("pull", "--quiet", f"docker-archive:{file}"))
    file.unlink()


def layout(image: str) -> Path:
    """Return the folder that stands for an image's place in the registry."""
    place = FOLDER / "registry" / image.rpartition("/")[2].replace(":", "-")
    place.parent.mkdir(exist_ok=True)
    return place


def digest_of(image: str) -> Path:
    """Return the file with the digest of what joins an image's processors."""
    place = layout(image)
    return place.with_name(f"{place.name}.digest")


def docker_build(arguments: list[str]) -> int:
    quicker = os.environ.get("DHP_GATEWAY_OPTIMISATION")
    if quicker is not None:
        arguments = ["--build-arg", f"OPTIMISATION={quicker}", *arguments]
        note(f"the C compiler's level is {quicker}, a release's is 2")
    note("built by buildah on this machine's Debian instead of docker's python images")
    command = ["buildah", "build", "--format", "docker", *arguments]
    return subprocess.run(command, env=builder().environment, check=False).returncode


def docker_run(arguments: list[str]) -> int:
    flags = {"--rm", "--detach", "--read-only"}
    found, (name, *command) = options(arguments, flags)
    for each in [*found.get("--publish", []), *found.get("-p", [])]:
        here, _, inside = each.partition(":")
        if here != inside:
            raise SystemExit(f"{each}: only the same port is published here")
    image = builder().image(name)
    if "--detach" in found:
        return detached(found["--name"][0], image, command)
    with image.start(image.command(*command), {}) as running:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _: running.send_signal(number))
        return running.wait()


def detached(name: str, image: Image, command: list[str]) -> int:
    with (FOLDER / f"{name}.out").open("wb") as output:
        pipes = {"stdout": output, "stderr": output, "start_new_session": True}
        started = image.start(image.command(*command), {}, **pipes)
    (FOLDER / f"{name}.pid").write_text(str(started.pid))
    print(started.pid)
    return 0


def docker_rm(arguments: list[str]) -> None:
    name = arguments[-1]
    pid = int((FOLDER / f"{name}.pid").read_text())
    os.killpg(pid, signal.SIGTERM)
    while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text():
        time.sleep(0.1)
    print(name)


def docker_save(arguments: list[str]) -> None:
    name = arguments[0]
    file = FOLDER / "saved.tar"
    file.unlink(missing_ok=True)
    buildah("push", "--quiet", name, f"docker-archive:{file}:docker.io/library/{name}")
    with file.open("rb") as saved:
        shutil.copyfileobj(saved, sys.stdout.buffer)
    file.unlink()


def docker_index(arguments: list[str]) -> None:
    """Join the images of the processors that are here under one name, or print its digest."""
    verb, rest = arguments[1], arguments[2:]
    if verb == "inspect":
        print(digest_of(rest[-1]).read_text().strip())
        return
    found, parts = options(rest, set())
    (name,) = found["--tag"]
    made = buildah("manifest", "create", f"{name}-index")
    for part in parts:
        if layout(part).exists():
            buildah("manifest", "add", made, f"oci:{layout(part)}")
        else:
            note(f"only on GitHub: {part.rpartition('-')[2]}, another processor's image")
    pushed = ("manifest", "push", "--all", "--digestfile", str(digest_of(name)), made)
    buildah(*pushed, f"oci:{layout(name)}")
    buildah("manifest", "rm", made)


def docker_image(_: list[str]) -> None:
    """Remove all images that were built."""
    builder().clean()


VERBS: dict[str, Callable[[list[str]], int | None]] = {
    "info": lambda _: None,
    "build": docker_build,
    "run": docker_run,
    "rm": docker_rm,
    "login": docker_login,
    "tag": lambda rest: print(buildah("tag", *rest)),
    "push": docker_push,
    "save": docker_save,
    "load": docker_load,
    "image": docker_image,
    "buildx": docker_index,
}


def gh(arguments: list[str]) -> int:
    files = [Path(each) for each in arguments if not each.startswith("-")][3:]
    if arguments[:2] != ["release", "create"] or not files:
        raise SystemExit("gh: only `gh release create TAG FILE…` is known here")
    missing = [str(each) for each in files if not each.is_file()]
    note(f"only on GitHub: the release itself, with {len(files)} files")
    return len(missing)


class Index(BaseHTTPRequestHandler):
    """A package index that stores what is uploaded."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"] or 0)
        head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
        body = self.rfile.read(length) if length else self._chunks()
        for part in BytesParser(policy=HTTP).parsebytes(head + body).iter_parts():
            content = part.get_payload(decode=True)
            if (name := part.get_filename()) and isinstance(content, bytes):
                (FOLDER / "index" / name).write_bytes(content)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _chunks(self) -> bytes:
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        return b"".join(chunks)

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


def uv(arguments: list[str]) -> int:
    """Upload to the index of this process; any other command is uv's own."""
    here = [each for each in os.environ["PATH"].split(":") if Path(each) != PROGRAMS]
    real = shutil.which("uv", path=":".join(here))
    if real is None:
        raise SystemExit("uv: not installed")
    if arguments[:3] != ["publish", "--trusted-publishing", "always"]:
        return subprocess.run([real, *arguments], check=False).returncode
    (FOLDER / "index").mkdir(exist_ok=True)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/legacy/"
    account = ["--publish-url", url, "--username", "rehearsal", "--password", "rehearsal"]
    command = [real, "publish", "--trusted-publishing", "never", *account, *arguments[3:]]
    done = subprocess.run(command, check=False)
    stored = len(list((FOLDER / "index").iterdir()))
    note(f"uploaded to an index of this machine instead of PyPI: {stored} files")
    return done.returncode or int(stored < len(arguments[3:]))


def helm(arguments: list[str]) -> int:
    return subprocess.run([unpacked_program("helm"), *arguments], check=False).returncode


def kubectl(arguments: list[str]) -> int:
    return subprocess.run([unpacked_program("kubectl"), *arguments], check=False).returncode


def kubernetes_validate(arguments: list[str]) -> int:
    return subprocess.run([validator(), *arguments], check=False).returncode


def sudo(arguments: list[str]) -> int:
    """Everything here is root's already, in a file system of its own."""
    return subprocess.run(arguments, check=False).returncode


STAND_INS = {
    "docker": docker,
    "gh": gh,
    "helm": helm,
    "kubectl": kubectl,
    "kubernetes-validate": kubernetes_validate,
    "sudo": sudo,
    "uv": uv,
}


def bases() -> dict[str, str]:
    """Return what takes the place of docker's Python images: made once, from this Debian."""
    made, release = builder(), this_release()
    return {
        "BASE_IMAGE": made.base(release, compiles=False),
        "BUILD_IMAGE": made.base(release, compiles=True),
    }


def images_without_bases() -> int:
    """Remove what the rehearsal has built; return the number of images that stay."""
    builder().clean()
    return len(json.loads(buildah("images", "--json")))


if __name__ == "__main__":
    sys.exit(STAND_INS[sys.argv[1]](sys.argv[2:]))
