"""`dhp-gateway` and `python -m gateway`.

What supervisors of services and containers start, `run` with at most a `--config`, begins at once:
the command line's library would cost time, and memory for as long as the gateway runs. Whatever
else is said, and how a start that failed is told, is the command line's.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from gateway.commands import serving

# typer makes something else of them on Windows.
_EXPANDED: Final = frozenset("~$%*?[")


def main() -> None:
    """The console script."""
    _forbid_core_dumps()
    begin = _run_without_typer(sys.argv[1:])
    failure: BaseException | None = None
    if begin is not None:
        try:
            sys.exit(begin())
        except (Exception, KeyboardInterrupt) as error:
            failure = error
    from gateway.cli import main as command_line

    command_line(failure)


def _forbid_core_dumps() -> None:
    """They would hold secrets, tokens and patient data; also for all processes begun from here."""
    try:
        import resource
    except ImportError:
        return  # not on Windows, which writes none unasked
    # Whoever confines the process may forbid even that.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _run_without_typer(argv: Sequence[str]) -> Callable[[], int] | None:
    """What to do when that is plain to see; what could be meant otherwise is not."""
    match argv:
        case ["run"]:
            return partial(serving.run_gateway, None)
        case ["run", "--config", file] if file[:1] not in ("", "-") and _EXPANDED.isdisjoint(file):
            return partial(serving.run_gateway, Path(file))
        case ["worker", inheritance] if inheritance[:1] == "[":
            return partial(serving.run_worker, inheritance)
    return None


if __name__ == "__main__":
    main()
