"""Prints what of a lock file a Windows needs: python for_windows.py requirements.lock 3.13

pip takes wheels of another system (`--platform`), but decides by its own which requirements hold.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from packaging.requirements import Requirement


def windows(version: str) -> dict[str, str]:
    """The environment of markers of a CPython on a 64-bit Windows."""
    return {
        "implementation_name": "cpython",
        "os_name": "nt",
        "platform_machine": "AMD64",
        "platform_python_implementation": "CPython",
        "platform_system": "Windows",
        "python_full_version": f"{version}.99",
        "python_version": version,
        "sys_platform": "win32",
    }


def main() -> None:
    """The command."""
    lock, version = sys.argv[1:]
    environment = windows(version)
    for entry in re.split(r"\n(?=[a-z])", Path(lock).read_text("utf-8")):
        requirement, *hashes = entry.strip().split(" \\\n")
        marker = Requirement(requirement).marker
        if marker is None or marker.evaluate(environment):
            lines = [requirement.partition(";")[0].strip(), *hashes]
            sys.stdout.write(" \\\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
