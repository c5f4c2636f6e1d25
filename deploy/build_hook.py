"""Compiles the catalogues of translations and, where that is requested, the request path.

Each `.mo` file is written beside its `.po` file, for every kind of package and for an editable
installation; `pyproject.toml` includes them although git ignores them.

`DHP_GATEWAY_COMPILE=1` requests a wheel made with mypyc. It needs a C compiler and Python's header
files; it runs on the Python and the platform that made it, and contains all sources too. Without
the variable the wheel is one for any system. The gateway behaves the same either way.

`DHP_GATEWAY_OPTIMISATION` is the C compiler's level, 0 to 3; the default, 2, is the one of
releases. A lower level compiles faster.
"""

from __future__ import annotations

import ast
import os
import shutil
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH = "DHP_GATEWAY_COMPILE"
LEVEL = "DHP_GATEWAY_OPTIMISATION"
# The modules that a request passes through. The others are not worth the size of their machine
# code; `http/server/task_root` must stay interpreted. Where an attribute of a compiled class is
# annotated with another class, mypyc looks that up: it is compiled, too, or imported at run time.
COMPILED = {
    ".": "clock exchange",
    "app": "request_dispatch",
    "audit": "audit_trail",
    "fhir": "conditional_writes content_negotiation interaction json_text search_parameters",
    "fhir/links": "deferred_edits json_links link_elements link_map rewriting stream_rewriter "
    "xml_links",
    "health": "evidence platform_judgement recent_requests",
    "http": "content_coding headers request_target slow_readers write_batching",
    "http/client": "body_completeness response_head tls_transport upstream_connection "
    "upstream_pool upstream_response",
    "http/server": "absolute_form caller_connection listener peer request_checks "
    "request_parser request_payload",
    "oauth": "token_backoff tokens",
    "outbox": "intake",
    "pipeline": "admission callers guards handler link_translation "
    "own_replies permissions request request_body request_composer response_checks "
    "response_writer upstream",
    "telemetry": "log_masking request_counters",
}


class BuildHook(BuildHookInterface):
    """The build hook that hatchling calls: creates the files of a package that are not sources."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the catalogues, and, for a wheel for which it is requested, the modules."""
        compile_catalogues(Path(self.root))
        if self.target_name != "wheel" or version == "editable" or os.environ.get(SWITCH) != "1":
            return
        self._place = tempfile.TemporaryDirectory()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= {
            str(file): str(file.relative_to(self._place.name))
            for file in compile_in(Path(self._place.name), Path(self.root))
        }

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the temporary directory."""
        if hasattr(self, "_place"):
            self._place.cleanup()


def compile_catalogues(project: Path) -> None:
    """Write the `.mo` file of each catalogue to the folder of its `.po` file.

    A file that has not changed is not written, because a running gateway may read it.
    """
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    for source in sorted((project / "gateway" / "locale").glob("*/LC_MESSAGES/*.po")):
        with source.open("rb") as file:
            catalogue = read_po(file, locale=source.parent.parent.name)
        # A constant date, so that the same sources result in the same package.
        catalogue.creation_date = catalogue.revision_date = datetime.fromtimestamp(0, UTC)
        made, target = BytesIO(), source.with_suffix(".mo")
        write_mo(made, catalogue)
        if not target.exists() or target.read_bytes() != made.getvalue():
            target.write_bytes(made.getvalue())


def compile_in(place: Path, project: Path) -> list[Path]:
    """Compile a copy of `project`'s package, made in `place`. Return the libraries."""
    from mypyc.build import mypycify
    from setuptools import Distribution
    from setuptools.command.build_ext import build_ext

    shutil.copytree(project / "gateway", place / "gateway")
    shutil.copy(project / "pyproject.toml", place)
    modules = list(chosen(place / "gateway"))
    for module in modules:
        module.write_text(with_constructors(without_slots(module.read_text())))
    before = Path.cwd()
    os.chdir(place)
    try:
        names = [str(module.relative_to(place)) for module in modules]
        level = os.environ.get(LEVEL, "2")
        extensions = mypycify(names, opt_level=level, debug_level="0", group_name="gateway")
        for each in extensions:
            # mypyc turns warnings into errors; which warnings there are depends on the compiler's
            # version.
            each.extra_compile_args.append("-Wno-error")
            # gcc reads the whole file again for each line whose indentation it checks: minutes for
            # these files.
            each.extra_compile_args.append("-Wno-misleading-indentation")
            # Only Python looks for names in the libraries: a table of all of them takes 0.4 MB of
            # memory.
            each.extra_compile_args.append("-fvisibility=hidden")
        command = build_ext(Distribution({"name": "gateway", "ext_modules": extensions}))
        command.inplace = True
        command.ensure_finalized()
        command.run()
    finally:
        os.chdir(before)
    return [file for file in place.rglob("*.so") if "build" not in file.relative_to(place).parts]


def chosen(package: Path) -> Iterator[Path]:
    """Return the files of the modules that are compiled."""
    for folder, names in COMPILED.items():
        yield from (package / folder / f"{name}.py" for name in names.split())


def without_slots(source: str) -> str:
    """Return the module without `__slots__` and `slots=True`, with the same line numbers.

    A compiled class has no dictionary anyway, and mypyc refuses the declaration.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef):
            for first, last in _declarations(node):
                _put(lines, first, last, " " * (node.col_offset + 4) + "pass\n")
            for keyword in _slots_keywords(node):
                line = keyword.lineno - 1
                # A default in its place, so that the call is valid wherever the keyword stood.
                lines[line] = lines[line].replace("slots=True", "init=True")
    return "".join(lines)


def with_constructors(source: str) -> str:
    """Return the module with an `__init__` in its dataclasses, in place of their docstrings.

    The `__init__` that Python generates when the module is loaded is not compiled, and is the
    largest part of the cost of creating an object. For frozen dataclasses it cannot be written.
    """
    lines = source.splitlines(keepends=True)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and (call := _plain_dataclass(node)) is not None:
            constructor, docstring = _constructor(node), node.body[0]
            if constructor is None or ast.get_docstring(node) is None:
                continue
            first, last = docstring.lineno - 1, docstring.end_lineno or docstring.lineno
            _put(lines, first, last, " " * docstring.col_offset + constructor + "\n")
            line = call.lineno - 1
            lines[line] = lines[line].replace("init=True", "init=False")
    return "".join(lines)


def _put(lines: list[str], first: int, last: int, statement: str) -> None:
    """Replace the lines from `first` to `last` by one; all others keep their numbers."""
    lines[first:last] = [statement, *["\n"] * (last - first - 1)]


def _plain_dataclass(node: ast.ClassDef) -> ast.Call | None:
    """Return the decorator of a dataclass that `without_slots` has changed, unless it is frozen."""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and ast.unparse(decorator) == "dataclass(init=True)":
            return decorator
    return None


def _constructor(node: ast.ClassDef) -> str | None:
    """Return the `__init__` of a dataclass on one line; None where it is not that simple."""
    if node.bases:
        return None  # perhaps a dataclass with fields of its own
    parameters, assignments = ["self"], []
    for statement in node.body:
        match statement:
            case ast.FunctionDef(name="__init__" | "__post_init__"):
                return None
            case ast.AnnAssign(value=ast.Call()):
                return None  # perhaps a `field` with a factory
            case ast.AnnAssign(target=ast.Name(name), annotation=annotation, value=default):
                given = "" if default is None else f" = {ast.unparse(default)}"
                parameters.append(f"{name}: {ast.unparse(annotation)}{given}")
                assignments.append(f"self.{name} = {name}")
    return f"def __init__({', '.join(parameters)}) -> None: {'; '.join(assignments)}"


def _declarations(node: ast.ClassDef) -> Iterator[tuple[int, int]]:
    for statement in node.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name("__slots__")])
                | ast.AnnAssign(target=ast.Name("__slots__"))
            ):
                yield statement.lineno - 1, statement.end_lineno or statement.lineno


def _slots_keywords(node: ast.ClassDef) -> Iterator[ast.keyword]:
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call):
            yield from (keyword for keyword in decorator.keywords if keyword.arg == "slots")
