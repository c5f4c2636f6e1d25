"""Runs `dhp-gateway …` to its end, forked from a process that has imported it already."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.doubles.forked import ForkedGateway

SECRET = "hunter2-s3cret"
_NO_SETTINGS = Path(__file__).parent


@dataclass(frozen=True)
class Result:
    """The exit code and the output of a command."""

    code: int
    out: str
    err: str


async def dhp(
    *arguments: str | Path,
    environ: Mapping[str, str] | None = None,
    places: Sequence[str | Path] | None = None,
    folder: Path = _NO_SETTINGS,
) -> Result:
    """Run the command to its end. Fails when its output shows a traceback or the secret.

    `places` are the paths where it looks for a settings file, `folder` is its working directory.
    """
    clean = {k: v for k, v in os.environ.items() if not k.startswith("DHP_GATEWAY_")}
    with tempfile.TemporaryDirectory() as directory:
        stdout, stderr = (Path(directory, name) for name in ("out", "err"))
        for file in (stdout, stderr):
            file.touch()
        process = ForkedGateway(
            [str(each) for each in arguments],
            stdout=stdout,
            stderr=stderr,
            environment={**clean, **(environ or {})},
            directory=folder,
            places=None if places is None else [Path(place) for place in places],
        )
        code = await asyncio.to_thread(process.wait)
        out, err = stdout.read_bytes(), stderr.read_bytes()
    assert b"Traceback" not in out + err, err.decode()
    assert SECRET.encode() not in out + err
    assert b"\x1b[" not in out + err, "colours where they are not seen"
    return Result(code, out.decode(), err.decode())
