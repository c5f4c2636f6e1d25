"""The programs of the benchmark: for a while they run before others, if that is permitted."""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.processes import ahead_of_others, running


def test_only_within_the_block_programs_run_ahead_of_others(tmp_path: Path) -> None:
    """A program and the benchmark have SCHED_RR in the block, if permitted, and not after it."""
    core = min(os.sched_getaffinity(0))
    with running(["sleep", "60"], core, tmp_path / "errors") as program:
        both = (program.popen.pid, 0)
        with ahead_of_others([program]) as permitted:
            inside = {os.sched_getscheduler(pid) for pid in both}
        after = {os.sched_getscheduler(pid) for pid in both}
    assert inside == {os.SCHED_RR if permitted else os.SCHED_OTHER}
    assert after == {os.SCHED_OTHER}
