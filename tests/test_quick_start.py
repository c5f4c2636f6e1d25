"""The commands of README and quick start do what the pages say, in each language.

README's begin with a wheel, which is built here; `docker` runs what the image would.

Blocks marked `sh` are typed into one shell, in order; each line of a block marked `text` must then
be in what was printed since. Addresses become free ones, the playground is an embedded platform,
and what runs until Ctrl-C goes to the background until the page says "Ctrl-C".
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway import __version__
from tests.doubles.processes import GATEWAY_COMMAND, free_port, start
from tests.environments import output_of, run_or_skip
from tests.extent import left_to_ci
from tests.tracked_files import tracked_files

ROOT = Path(__file__).parents[1]
QUICK_STARTS = [ROOT / "docs" / f"quick-start{suffix}.md" for suffix in ("", ".ru", ".uz")]
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = re.compile(
    rf"{BLOCK.pattern}|(Ctrl-C)|`(\.venv/bin/dhp-gateway (?:check|doctor))`", BLOCK.flags
)
# Commands within sentences: those of STEP are typed, and those of OTHERS have tests elsewhere.
COMMAND = re.compile(r"`((?:make|docker|uvx|(?:\.venv/bin/)?dhp-gateway) [^`]+)`")
OTHERS = {
    "make demo ARGS=": "test_quick_start.py",
    "make help": "test_quick_start.py",
    "docker run --rm -p 8081:8080 …": "deploy/test_image.py",
    "make image": "deploy/test_build_script.py",
    "make site": "test_site.py",
    ".venv/bin/dhp-gateway init --directory .": "cli/test_init_command.py",
    "dhp-gateway audit verify FILE": "cli/test_audit_command.py",
}
# What does not come back until Ctrl-C.
SERVES = re.compile(
    r"^(make demo|docker run|uvx --from|\.venv/bin/dhp-gateway run)\b", re.MULTILINE
)
# How to get packages, and where uv keeps them.
NETWORK = re.compile(r"^HOME$|_proxy$|_ca_|_cert|^pip_|^uv_", re.IGNORECASE)
PATIENCE = 120

# With these a fresh Debian or Ubuntu has all that is typed after it.
INSTALL = "apt-get install -y git make curl python3 python3-venv"
# `make demo` without its set-up, which would renew the environment that this test runs in. Ports
# are the test's, as a sandbox has no variables for the platform's.
PROMPT = """
set -eo pipefail
running=
sudo() {{  # what this machine has already
    [ "$*" = "{install}" ]
}}
git() {{
    [ "$1 $2" = "clone ADDRESS" ] && mkdir "$3" && ln -s ../.venv "$3/.venv"
}}
make() {{
    [ "$1" = demo ] || return 0
    exec .venv/bin/dhp-gateway sandbox --listen {listen} --port {port} --admin {admin} ${{2#ARGS=}}
}}
docker() {{
    case "$1" in
        load) [ "$2 $3" = "--input dhp-gateway-{version}-image-amd64.tar.gz" ] ;;
        run)
            [ "$2 $3 $5 $7" = "--rm -p -p dhp-gateway:{version}" ]
            exec_sandbox .venv/bin/dhp-gateway "${{@:8}}"
            ;;
    esac
}}
uvx() {{
    [ "$1" = --from ] && exec_sandbox .venv/bin/uvx "$@"
}}
exec_sandbox() {{
    exec "$@" --listen {listen} --port {port} --admin {admin}
}}
serve() {{
    [ -z "$running" ] || {{ echo "the page does not say that the last one has to end"; exit 1; }}
    "$@" &
    running=$!
    until curl -sf --noproxy '*' "http://{admin}/livez" >/dev/null; do sleep 0.1; done
}}
interrupt() {{
    kill -INT "$running"
    wait "$running"
    running=
}}
tail() {{  # the record follows the response
    until grep -q '"exchange"' audit.log; do sleep 0.1; done
    command tail "$@"
}}
trap '[ -z "$running" ] || kill "$running"' EXIT
"""


def blocks(path: Path, kind: str) -> list[str]:
    return [text for found, text in BLOCK.findall(path.read_text("utf-8")) if found == kind]


class Terminal:
    """A shell in its own folder, and its output."""

    def __init__(self, folder: Path, platform_port: int, language: str) -> None:
        (folder / ".venv").symlink_to(sys.prefix)
        self._addresses = {f"127.0.0.1:{port}": f"127.0.0.1:{free_port()}" for port in (8080, 9464)}
        listen, admin = self._addresses.values()
        platform = f"http://127.0.0.1:{platform_port}"
        self._screen = folder / "screen"
        self._seen = 0
        with self._screen.open("wb") as screen:
            self._shell = subprocess.Popen(
                [shutil.which("bash") or "sh", "--noprofile", "--norc"],
                cwd=folder,
                env={
                    **{key: value for key, value in os.environ.items() if NETWORK.search(key)},
                    "PATH": "/usr/local/bin:/usr/bin:/bin",
                    "LANG": f"{language}_UZ.UTF-8",
                    "DHP_GATEWAY_LISTEN__ADDRESS": listen,
                    "DHP_GATEWAY_ADMIN__ADDRESS": admin,
                    "DHP_GATEWAY_PLATFORM__FHIR_BASE_URL": f"{platform}/fhir",
                    "DHP_GATEWAY_SSO__TOKEN_URL": f"{platform}/oauth/token",
                },
                stdin=subprocess.PIPE,
                stdout=screen,
                stderr=subprocess.STDOUT,
            )
        names = {"listen": listen, "admin": admin, "port": free_port(), "install": INSTALL}
        self.type(PROMPT.format(**names, version=__version__))

    def translated(self, text: str) -> str:
        """Return the text with this terminal's addresses and client."""
        for written, used in self._addresses.items():
            text = text.replace(written, used)
        return text.replace("'SECRET'", "sandbox-secret").replace("your-client-id", "hospital-demo")

    def type(self, text: str) -> None:
        """Enter commands and wait until they have returned."""
        assert self._shell.stdin is not None
        self._seen = len(self.shown())
        command = SERVES.sub(r"serve \1", self.translated(text))
        self._shell.stdin.write(f"{command}\nprintf '\\n<done>\\n'\n".encode())
        self._shell.stdin.flush()
        self.wait_until_shown("<done>")

    def shown(self) -> str:
        return self._screen.read_text("utf-8", errors="replace")

    def wait_until_shown(self, line: str) -> None:
        """Wait until this has been printed since the last commands."""
        deadline = time.monotonic() + PATIENCE
        while self.translated(line) not in self.shown()[self._seen :]:
            if self._shell.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"not shown: {line}\n{self.shown()[self._seen :][-4000:]}")
            time.sleep(0.02)

    def close(self) -> None:
        assert self._shell.stdin is not None
        self._shell.stdin.close()
        self._shell.wait(PATIENCE)


def put_wheel(folder: Path) -> None:
    """Build the wheel for any system into a folder; skip where uvx reaches no package index."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory"]
    subprocess.run([*build, folder], cwd=ROOT, check=True, capture_output=True)
    wheel = f"./dhp_gateway-{__version__}-py3-none-any.whl[sandbox]"
    line = [Path(sys.executable).with_name("uvx"), "--from", wheel, "dhp-gateway", "--version"]
    run_or_skip("no package index can be reached", line, folder)


@contextmanager
def open_terminal(tmp_path: Path, language: str) -> Iterator[Terminal]:
    """Yield a shell in a folder where `make demo` has been run; the playground is a sandbox."""
    if shutil.which("curl") is None:
        pytest.skip("curl is missing: make test-tools")
    port = free_port()
    command: list[str | Path] = [GATEWAY_COMMAND, "sandbox", "--platform-only", "--port", str(port)]
    playground = start(command, tmp_path, name="playground")
    try:
        playground.wait_until_listening(port)
        terminal = Terminal(tmp_path, port, language)
        yield terminal
        terminal.close()
    finally:
        playground.terminate()


@pytest.mark.parametrize(
    "path", left_to_ci([ROOT / "README.md", *QUICK_STARTS], but=1), ids=lambda path: path.name
)
def test_each_command_prints_what_the_page_says(path: Path, tmp_path: Path) -> None:
    """In a terminal of the page's language."""
    assert len(blocks(path, "sh")) >= 4
    language = path.suffixes[0].strip(".") if len(path.suffixes) > 1 else "en"
    if path.name == "README.md":
        put_wheel(tmp_path)
    with open_terminal(tmp_path, language) as terminal:
        for kind, text, interrupt, command in STEP.findall(path.read_text("utf-8")):
            if interrupt:
                terminal.type("interrupt")
            elif command:
                terminal.type(command)
            elif kind == "sh":
                terminal.type(text)
            else:
                for line in text.splitlines():
                    terminal.wait_until_shown(line)


@pytest.mark.parametrize("path", [ROOT / "README.md", *QUICK_STARTS], ids=lambda path: path.name)
def test_each_command_within_a_sentence_has_a_test(path: Path) -> None:
    text = path.read_text("utf-8")
    typed = {command for *_, command in STEP.findall(text)}
    untried = [
        each
        for each in COMMAND.findall(BLOCK.sub("", text))
        if each not in typed and not each.startswith(tuple(OTHERS))
    ]
    assert untried == []
    assert [each for each in OTHERS.values() if not (ROOT / "tests" / each).is_file()] == []


def test_make_help_lists_each_target_that_the_pages_name() -> None:
    pages = [ROOT / "README.md", *QUICK_STARTS, *tracked_files(".github/*.md")]
    named = {
        target
        for page in pages
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text("utf-8"), re.MULTILINE)
    }
    listed = set(re.findall(r"^  make ([a-z-]+)", output_of(["make", "help"]), re.MULTILINE))
    assert len(named) > 5
    assert named - listed - {"help"} == set()


def test_the_sandbox_takes_other_ports(tmp_path: Path) -> None:
    """By the command that README shows, with ports that are free here."""
    found = re.search(r"`(make demo ARGS=[^`]+)`", (ROOT / "README.md").read_text("utf-8"))
    assert found is not None
    with open_terminal(tmp_path, "en") as terminal:
        ports = {each: str(free_port()) for each in ("8081", "8091", "9465")}
        command = re.sub(r"\b\d{4}\b", lambda port: ports[port[0]], found[1])
        terminal.type(f"( {command} ) & running=$!")
        terminal.wait_until_shown(f"http://127.0.0.1:{ports['9465']}/status")
        terminal.type(f"curl -sf http://127.0.0.1:{ports['8081']}/fhir/metadata")
        terminal.wait_until_shown('"resourceType":"CapabilityStatement"')
        terminal.type("interrupt")
