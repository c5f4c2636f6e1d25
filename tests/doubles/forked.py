"""`dhp-gateway` forked from a process that has imported it already.

Importing is most of the time that a start takes, and the tests start hundreds. The same `main()`
runs, in a separate process.
"""

from __future__ import annotations

import atexit
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
# Not `gateway.cli.main`, which looks at the terminal when it is imported.
FORKS.set_forkserver_preload(
    [
        *("gateway.__main__", "gateway.app.run", "gateway.cli.doctor"),
        *("gateway.cli.outbox_commands", "gateway.outbox.store.database", "click", __name__),
    ]
)

# A start looks at all processes, too, and of two threads that read the exit code of one at the same
# time, `multiprocessing` lets the second replace it by 255.
_looking = threading.Lock()


class ForkedGateway:
    """A forked gateway with those methods of `subprocess.Popen` that the tests use.

    Its output goes to files. `places` are the paths where it looks for a settings file, instead of
    those of this machine.
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
        with _looking:
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Return the exit code, negative for a signal; None while the process runs."""
        with _looking:
            return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return the exit code.

        Raises `subprocess.TimeoutExpired`.
        """
        wait([self._process.sentinel], timeout)
        code = self.returncode
        if code is None:
            raise subprocess.TimeoutExpired("dhp-gateway", timeout or 0)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
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
    from gateway.config import loader

    for number, file in ((1, stdout), (2, stderr)):
        opened = os.open(file, os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environment)
    if places is not None:
        loader.search_paths = lambda environ: tuple(places)
    sys.argv = ["dhp-gateway", *arguments]
    try:
        main()
    finally:
        # multiprocessing does not run exit functions, and newer Pythons forget those of preloaded
        # modules. The one of `logging` writes the last log lines.
        atexit._run_exitfuncs()
        logging.shutdown()
