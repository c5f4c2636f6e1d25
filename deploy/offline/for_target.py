"""Prints the entries of a lock file that a target may need.

    python for_target.py requirements.lock [3.13]

The target has this Python's minor version, or, with one given, is a 64-bit Windows with that one.
pip decides by its own system and patch release which requirements apply; Debian 12 has 3.11.2.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement


def windows(version: str) -> dict[str, str]:
    """Return the marker environment of a CPython on a 64-bit Windows."""
    return {
        "implementation_name": "cpython",
        "os_name": "nt",
        "platform_machine": "AMD64",
        "platform_python_implementation": "CPython",
        "platform_system": "Windows",
        "python_version": version,
        "sys_platform": "win32",
    }


def main() -> None:
    """Print the entries."""
    lock, *named = sys.argv[1:]
    target = windows(*named) if named else {**default_environment()}
    patches = [{"python_full_version": f"{target['python_version']}.{each}"} for each in (0, 99)]
    for entry in re.split(r"\n(?=[a-z])", Path(lock).read_text("utf-8")):
        requirement, *hashes = entry.strip().split(" \\\n")
        marker = Requirement(requirement).marker
        if marker is None or any(marker.evaluate({**target, **patch}) for patch in patches):
            lines = [requirement.partition(";")[0].strip(), *hashes]
            sys.stdout.write(" \\\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
