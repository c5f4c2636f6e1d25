"""Makes the pictures of the documents again: `python docs/pictures.py`.

The recorded terminal is what the commands of README's "A first request" print in front of a real
sandbox, with what differs each time replaced; `tests/test_pictures.py` compares it. The pages are
photographed by tests/browser/test_status.py, which needs a browser and some minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TERMINAL = ROOT / "docs" / "img" / "first-minute.svg"
PHOTOGRAPHER = "tests/browser/test_status.py"
# The addresses of the sandbox, in the order of its options.
ADDRESSES = ("127.0.0.1:8080", "127.0.0.1:8090", "127.0.0.1:9464")
# Of the screen, and of one line in it.
WIDTH, MOST_ROWS = 100, 3
# What is another one each time, and what is shown in its place.
CHANGING = (
    (r"/tmp/[\w-]+/audit\.jsonl", "/tmp/dhp-gateway-x8k2/audit.jsonl"),
    (r"(?m)^Date: .*$", "Date: Wed, 02 Dec 2026 09:00:00 GMT"),
    (r"(?m)^X-Request-Id: .*$", "X-Request-Id: cf54c36b-3cd2-4007-a225-49287e12510e"),
    (r"(?m)^Content-Length: .*$", "Content-Length: 5120"),
    (r'("Bundle","id":)"[^"]+"', r'\1"0ead1326-a3ef-42e7-a1a4-b3e6a0b7a602"'),
)
# The last line that the sandbox prints of itself; its log follows.
END = "To stop it: Ctrl-C."
# Seconds, between two parts of the recording.
PAUSE = 2.5


def recorded() -> Iterator[list[str]]:
    """Yield the parts of the recording, each the rows of a command and of what it printed."""
    places = {each: f"127.0.0.1:{_free_port()}" for each in ADDRESSES}
    listen, platform, admin = places.values()
    options = ["--listen", listen, "--port", platform.rpartition(":")[2], "--admin", admin]
    command = [Path(sys.executable).with_name("dhp-gateway"), "sandbox", *options]
    with tempfile.TemporaryFile("w+", encoding="utf-8") as screen:
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "TMPDIR": "/tmp"}
        sandbox = subprocess.Popen(command, stdout=screen, env=environment)
        try:
            text = ""
            while END not in text:
                if sandbox.poll() is not None:
                    raise RuntimeError("the sandbox does not start")
                time.sleep(0.05)
                screen.seek(0)
                text = screen.read()
            yield _part("make demo", text.partition(END)[0] + END, places)
            for line in _first_requests():
                yield _part(line, _output_of(line, places), places)
        finally:
            sandbox.terminate()
            sandbox.wait()


def _first_requests() -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## A first request")[2]
    return re.findall(r"^curl .*$", text, re.MULTILINE)


def _output_of(line: str, places: dict[str, str]) -> str:
    for shown, used in places.items():
        line = line.replace(shown, used)
    done = subprocess.run(
        ["bash", "-c", line.replace("curl", "curl --silent --noproxy '*'")],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def _part(command: str, output: str, places: dict[str, str]) -> list[str]:
    for shown, used in places.items():
        output = output.replace(used, shown)
    for pattern, shown in CHANGING:
        output = re.sub(pattern, shown, output.replace("\r", ""))
    rows: list[str] = []
    for line in output.rstrip().splitlines():
        whole = line if len(line) <= WIDTH * MOST_ROWS else f"{line[: WIDTH * MOST_ROWS - 1]}…"
        rows += [whole[at : at + WIDTH] for at in range(0, len(whole), WIDTH)] or [""]
    return [f"$ {command}", *rows]


def drawn(parts: Sequence[Sequence[str]]) -> str:
    """Return the recording as SVG: the parts appear one after the other, and stay."""
    height = 17 * (sum(map(len, parts)) + len(parts)) + 20
    rows, y = [], 14
    for number, part in enumerate(parts):
        delay = f' style="animation-delay:{number * PAUSE:.1f}s"'
        for row, text in enumerate(part):
            y += 17
            kind = ' class="typed"' if row == 0 else ""
            rows.append(f'<text x="16" y="{y}"{kind}{delay}>{escape(text)}</text>')
        y += 17
    body = "\n".join(rows)
    return f"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * 8 + 32} {height}"
  xml:space="preserve">
<title>The sandbox starts, a Patient is read, an ignored parameter is noticed</title>
<style>
text {{ font: 13px/17px ui-monospace, Menlo, Consolas, monospace; fill: #d6dde6; white-space: pre;
  animation: appear 0.3s both }}
.typed {{ fill: #7ee2a0; font-weight: bold }}
@keyframes appear {{ from {{ opacity: 0 }} }}
@media (prefers-reduced-motion: reduce) {{ text {{ animation: none }} }}
</style>
<rect width="100%" height="100%" rx="8" fill="#161b22"/>
{body}
</svg>
"""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> int:
    """Write all pictures; return the exit code."""
    if shutil.which("curl") is None:
        sys.stderr.write("curl is missing: make test-tools\n")
        return 1
    TERMINAL.write_text(drawn(list(recorded())), encoding="utf-8")
    photographs = [sys.executable, "-m", "pytest", "-q", PHOTOGRAPHER]
    environment = {**os.environ, "DHP_SCREENSHOTS": "1", "DHP_NO_SKIPS": "1"}
    return subprocess.run(photographs, cwd=ROOT, env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
