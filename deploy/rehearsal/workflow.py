"""What a workflow's file says: its jobs in the order of their needs, and their steps.

Only what the release's workflow uses is understood. Anything else is an error, so that nothing
passes here that is not known.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

JOB_KEYS = {"name", "needs", "runs-on", "timeout-minutes", "permissions", "environment", "env"}
JOB_KEYS |= {"strategy", "steps"}
STEP_KEYS = {"name", "id", "uses", "with", "run", "env"}
EXPRESSION = re.compile(r"\$\{\{ ([\w.-]+) \}\}")

Values = Mapping[str, str]


class WorkflowError(Exception):
    """The file says something that is not understood here."""


@dataclass
class Step:
    """One step of a job, with its expressions as they are written."""

    name: str
    action: str | None
    inputs: dict[str, str]
    script: str | None
    env: dict[str, str]
    id: str | None


@dataclass
class Job:
    """One run of a job: a job with a matrix has several, each with its `matrix`."""

    key: str
    matrix: dict[str, str]
    env: dict[str, str]
    steps: list[Step]
    outputs: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        shown = [value for name, value in self.matrix.items() if name != "runner"]
        return " ".join((self.key, *shown))


def jobs_of(path: Path) -> list[Job]:
    """Return the runs of all jobs, each behind those that it needs."""
    described = yaml.safe_load(path.read_text(encoding="utf-8"))
    if described.get("defaults") != {"run": {"shell": "bash"}}:
        raise WorkflowError(
            f"{path.name}: without `defaults: run: shell: bash` pipes hide failures"
        )
    found: list[Job] = []
    for key in _in_order(described["jobs"]):
        job = described["jobs"][key]
        _refuse_unknown(job, JOB_KEYS, key)
        steps = [_step(each, key) for each in job["steps"]]
        found += [
            Job(key, matrix, _texts(job.get("env", {})), steps)
            for matrix in _matrices(job.get("strategy", {}).get("matrix", {}))
        ]
    return found


def filled_in(text: str, value_of: Callable[[str], str]) -> str:
    """Return a text with its expressions replaced; `value_of` raises `WorkflowError`."""
    return EXPRESSION.sub(lambda found: value_of(found[1]), text)


def _in_order(jobs: Mapping[str, Any]) -> list[str]:
    ordered: list[str] = []
    while len(ordered) < len(jobs):
        ready = [
            key
            for key, job in jobs.items()
            if key not in ordered and set(_list(job.get("needs", []))) <= set(ordered)
        ]
        if not ready:
            raise WorkflowError("jobs that need each other")
        ordered += ready
    return ordered


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _step(step: Mapping[str, Any], job: str) -> Step:
    _refuse_unknown(step, STEP_KEYS, job)
    action = step.get("uses")
    script = step.get("run")
    name = step.get("name") or str(action or script).split("@")[0].splitlines()[0]
    texts = _texts(step.get("with", {})), _texts(step.get("env", {}))
    return Step(name, action and action.split("@")[0], texts[0], script, texts[1], step.get("id"))


def _matrices(matrix: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield the combinations, as GitHub makes them where `include` adds to some or stands alone."""
    axes = {key: values for key, values in matrix.items() if key != "include"}
    added = matrix.get("include", [])
    if not axes:
        yield from (_texts(each) for each in added or [{}])
        return
    for values in itertools.product(*axes.values()):
        chosen = dict(zip(axes, values, strict=True))
        for more in added:
            if all(chosen.get(key, value) == value for key, value in more.items() if key in axes):
                chosen |= more
        yield _texts(chosen)


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        key: str(value).lower() if isinstance(value, bool) else str(value)
        for key, value in values.items()
    }


def _refuse_unknown(found: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := set(found) - known:
        raise WorkflowError(f"{where}: not understood: {', '.join(sorted(unknown))}")
