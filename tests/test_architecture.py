"""The directions of imports and the sizes that `docs/decisions.md` promises."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "gateway"

# What each part may import, besides itself and `gateway` (the version).
_GROUND = {"errors", "nesting", "secret", "retry_after", "system", "duration"}
_RECORD = _GROUND | {"exchange", "config"}
_KNOWLEDGE = {"fhir", "oauth", "telemetry"}
_PROCESS = {
    "system",
    "wiring",
    "certificates",
    "shared_store",
    "sockets",
    "systemd",
    "core",
    "reloading",
}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "nesting": set(),
    "secret": set(),
    "retry_after": set(),
    "system": set(),
    "duration": set(),
    "exchange": _GROUND,
    "config": _GROUND,
    "fhir": _RECORD,
    "oauth": _RECORD | {"telemetry"},
    "telemetry": _RECORD,
    "proxy": _RECORD | _KNOWLEDGE | {"outbox"},
    "outbox": _RECORD | {"fhir", "telemetry"},
    "admin": _RECORD | _KNOWLEDGE | {"proxy"},
    "sandbox": set(),
    "wiring": _RECORD | _KNOWLEDGE | {"proxy"},
    "certificates": {"config", "wiring"},
    "shared_store": {"config", "oauth", "secret", "wiring"},
    "sockets": {"config", "wiring", "system"},
    "systemd": set(),
    "signing_in": _RECORD | _KNOWLEDGE | {"proxy", "wiring", "certificates"},
    "tracing": {"config", "secret", "telemetry", "wiring", "certificates"},
    "keeping": {"config", "outbox", "proxy", "telemetry", "wiring"},
    "core": _RECORD
    | _KNOWLEDGE
    | {"proxy", "wiring", "certificates", "signing_in", "tracing", "keeping", "front_door"},
    "front_door": {"errors", "proxy"},
    "reloading": {"config", "wiring", "certificates", "telemetry"},
    "auditing": {"exchange", "config", "fhir", "oauth", "telemetry", "wiring", "certificates"},
    "app": _RECORD
    | _KNOWLEDGE
    | {"proxy", "admin", "auditing", "tracing", "keeping", "process"}
    | _PROCESS,
    "channel": set(),
    "process": {"config", "telemetry", "wiring", "system"},
    "worker": {"config", "auditing", "telemetry", "admin", "app", "channel", "process"} | _PROCESS,
    "supervising": {"config", "auditing", "telemetry", "admin", "app", "channel", "worker", "proxy"}
    | _PROCESS,
    "running": {"config", "app", "process", "supervising", "telemetry"} | _PROCESS,
    "commands": _RECORD
    | _KNOWLEDGE
    | {"app", "signing_in", "wiring", "certificates", "sockets", "sandbox", "outbox", "auditing"}
    | {"shared_store", "tracing"}
    | {"reloading", "running", "worker"},
    "cli": _RECORD
    | _KNOWLEDGE
    | {"running", "worker", "reloading", "wiring", "sandbox", "commands", "outbox"},
    "__main__": {"cli", "commands"},
    "__init__": set(),
}
MAX_MODULE_LINES = 400
MAX_FUNCTION_LINES = 50

MODULES = sorted(ROOT.rglob("*.py"))


def part_of(path: Path) -> str:
    """The top-level part a module belongs to."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_parts(tree: ast.Module) -> Iterator[str]:
    """The parts of the gateway that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide the direction"
            names = [node.module or ""]
            if node.module == "gateway":
                names = [f"gateway.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "gateway" and len(parts) > 1 and parts[1] != "__version__":
                yield parts[1]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path: Path) -> None:
    """A module imports only from the levels below its own."""
    part = part_of(path)
    imported = set(imported_parts(ast.parse(path.read_text("utf-8"))))
    assert imported <= ALLOWED[part] | {part}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_and_functions_stay_small(path: Path) -> None:
    """No module exceeds 400 lines and no function 50."""
    text = path.read_text("utf-8")
    assert text.count("\n") <= MAX_MODULE_LINES
    long = [
        node.name
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= MAX_FUNCTION_LINES
    ]
    assert long == []


def test_the_table_names_every_part() -> None:
    """No part of the gateway is without a rule."""
    assert {part_of(path) for path in MODULES} <= set(ALLOWED)


def test_only_the_composition_root_constructs_the_gateway() -> None:
    """Servers, pools and sessions are made in app, core, commands and the sandbox only."""
    makers = {"UpstreamPool", "CallerServer", "Tokens", "ClientSession", "Handler"}
    for path in MODULES:
        if part_of(path) in {"app", "core", "cli", "commands", "sandbox"}:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                assert name not in makers, f"{path.name} constructs {name}"
