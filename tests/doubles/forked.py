"""`dhp-gateway` forked from a process that has imported it already.

Importing is most of what a start costs, and the tests start hundreds. What runs is the same
`main()`, in a process of its own.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# Not `gateway.cli`, which looks at the terminal when it is imported.
FORKS.set_forkserver_preload(
    [
        *("gateway.__main__", "gateway.process.run", "gateway.commands.doctor"),
        *("gateway.commands.outbox", "gateway.outbox.database", "typer", __name__),
    ]
)


class ForkedGateway:
    """What the tests use of `subprocess.Popen`, of a forked gateway; its output goes to files.

    `places` are where it looks for a settings file, instead of this machine's.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        stdout: Path,
        stderr: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        places: Sequence[Path] | None = None,
    ) -> None:
        environ = dict(os.environ if environment is None else environment)
        self._process = FORKS.Process(
            target=_run,
            args=(arguments, stdout, stderr, environ, directory or Path.cwd(), places),
            daemon=True,
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it is over."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("dhp-gateway", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Signal it, unless it is over."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _run(
    arguments: Sequence[str],
    stdout: Path,
    stderr: Path,
    environment: Mapping[str, str],
    directory: Path,
    places: Sequence[Path] | None,
) -> None:
    from gateway.__main__ import main
    from gateway.config import source

    for number, file in ((1, stdout), (2, stderr)):
        opened = os.open(file, os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    if places is not None:
        source.search_paths = lambda environ: tuple(places)
    sys.argv = ["dhp-gateway", *arguments]
    try:
        main()
    finally:
        # multiprocessing leaves them out, and the last lines of the log come from there.
        atexit._run_exitfuncs()
