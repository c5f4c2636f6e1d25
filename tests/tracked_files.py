"""The files of the project as git knows them, without what programs and people left beside them.

For tests that look at the project's files by a pattern: in the folders themselves they would find
caches, packages, notes, and what other tests are just writing.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]


def tracked_files(pattern: str = "*") -> list[Path]:
    """Return the files whose path matches, in order; `*` stands for slashes, too, as in git.

    A new file is found when git has it in its index. A link to a folder counts as a file. Where
    there is no git, as in a source archive, all files are meant that .gitignore does not name.
    """
    return [ROOT / each for each in _names() if fnmatch(each, pattern)]


@cache
def _names() -> list[str]:
    try:
        # Without a clone's own folder it might be that of another project, around this one.
        command = ["git", f"--git-dir={ROOT / '.git'}", "ls-files", "-z"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        files = [ROOT / each for each in done.stdout.split("\0")[:-1]]
    except (OSError, subprocess.CalledProcessError):
        files = list(unignored_files())
    return sorted(str(each.relative_to(ROOT)) for each in files if each.exists())


def unignored_files(folder: Path = ROOT) -> Iterator[Path]:
    """Yield the files in a folder that .gitignore does not name, new ones included."""
    patterns = (ROOT / ".gitignore").read_text("utf-8").split()
    ignored = [".git", *(each.strip("/") for each in patterns)]
    for each in folder.iterdir():
        names = (each.name, str(each.relative_to(ROOT)))
        if any(fnmatch(name, pattern) for name in names for pattern in ignored):
            continue
        if each.is_dir() and not each.is_symlink():
            yield from unignored_files(each)
        else:
            yield each
