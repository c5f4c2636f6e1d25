"""`dhp-gateway` and `python -m gateway`.

Supervisors of services and containers start `run` with at most a `--config`. That starts at once,
because the command line's library would cost time, and memory for as long as the gateway runs. All
other commands, and the message about a failed start, are left to the command line.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from gateway.cli import serving

# click expands arguments with these characters on Windows.
_EXPANDED: Final = frozenset("~$%*?[")


def main() -> None:
    """Run the console script."""
    _forbid_core_dumps()
    begin = _run_without_click(sys.argv[1:])
    failure: BaseException | None = None
    if begin is not None:
        try:
            sys.exit(begin())
        except (Exception, KeyboardInterrupt) as error:
            failure = error
    from gateway.cli.main import main as command_line

    command_line(failure)


def _forbid_core_dumps() -> None:
    """Disable core dumps of this process and its children.

    They would contain secrets, tokens and patient data. PR_SET_DUMPABLE would also take
    `/proc/self` from the process, and with it the number of open files.
    """
    try:
        import resource
    except ImportError:
        return  # Windows lacks it, and writes no core dumps by default
    # A sandbox of the process may forbid even that.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run_without_click(argv: Sequence[str]) -> Callable[[], int] | None:
    """Return what to run if the arguments are unambiguous, else None: click parses them."""
    match argv:
        case ["run"]:
            return partial(serving.run_gateway, None)
        case ["run", "--config", file] if file[:1] not in ("", "-") and _EXPANDED.isdisjoint(file):
            return partial(serving.run_gateway, Path(file))
    return None


if __name__ == "__main__":
    main()
