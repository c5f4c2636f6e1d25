"""`dhp-gateway` and `python -m gateway`."""

from __future__ import annotations

import contextlib

from gateway.cli.main import main as command_line


def main() -> None:
    """Run the console script."""
    _forbid_core_dumps()
    command_line()


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


if __name__ == "__main__":
    main()
