"""The documents that are made from code are up to date."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_generated_documents_are_up_to_date() -> None:
    """docs/settings.md, docs/errors.md and config/reference.yaml are what the code would write."""
    checked = subprocess.run(
        [sys.executable, ROOT / "docs" / "generate.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == ("", "", 0)


def test_a_stale_document_is_noticed(tmp_path: Path) -> None:
    """The check compares: a copy of the project without the documents fails it, and is mended."""
    for folder in ("docs", "config"):
        (tmp_path / folder).mkdir()
    generate = tmp_path / "docs" / "generate.py"
    generate.write_text((ROOT / "docs" / "generate.py").read_text(encoding="utf-8"))
    command = [sys.executable, str(generate)]
    stale = subprocess.run([*command, "--check"], capture_output=True, timeout=60, cwd=ROOT)
    assert stale.returncode == 1
    assert stale.stdout.count(b"out of date") == 3
    subprocess.run(command, check=True, capture_output=True, timeout=60, cwd=ROOT)
    mended = subprocess.run([*command, "--check"], capture_output=True, timeout=60, cwd=ROOT)
    assert mended.returncode == 0
