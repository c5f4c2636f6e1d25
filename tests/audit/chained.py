"""Audit files to inspect, and the sinks that write them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from gateway.audit.file_sink import FileSink
from gateway.config.operations_settings import AuditSettings


def open_sink(path: Path, rotate_bytes: int = 1 << 20) -> FileSink:
    sink = FileSink(path, AuditSettings(rotate_bytes=rotate_bytes), clock=lambda: 1767225600.5)
    sink.open()
    return sink


def lines(count: int, first: int = 0) -> list[bytes]:
    return [b'{"event":"exchange","n":%d}\n' % number for number in range(first, first + count)]


def append(path: Path, count: int, first: int = 0, **options: int) -> None:
    """Write so many records as a process does that then ends."""
    sink = open_sink(path, **options)
    sink.write(lines(count, first))
    sink.close()


def files(path: Path) -> list[Path]:
    return [*sorted(path.parent.glob(f"{path.name}.*")), *([path] if path.exists() else [])]


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for file in files(path) for line in file.read_bytes().splitlines()]


def require_chain(found: list[dict[str, Any]], first: int = 1, prev: str = "0" * 64) -> None:
    """Recompute the chain from parsed records, without the gateway's code."""
    for seq, record in enumerate(found, first):
        text = json.dumps({k: v for k, v in record.items() if k != "hash"}, separators=(",", ":"))
        assert record["seq"] == seq
        assert record["prev"] == prev
        assert record["hash"] == hashlib.sha256(text.encode()).hexdigest()
        prev = record["hash"]
