"""What the gateway uses of aiohttp beyond its public interface.

That its parser names the cause of an error, in words that `request_checks` knows, is seen in the
diagnostics of the table of faults.
"""

from __future__ import annotations

import ast
from pathlib import Path

import aiohttp
import pytest
from aiohttp import http_parser, web
from aiohttp.http import HttpRequestParser

import gateway
from gateway.http.server.request_parser import require_strict_parser

PACKAGE = Path(gateway.__file__).parent


def test_it_is_the_parser_in_c() -> None:
    """The one in Python has other names, and is rejected at the start."""
    require_strict_parser()
    assert HttpRequestParser is not http_parser.HttpRequestParserPy


# What aiohttp promises: what these export, and constants for names of fields and methods.
PROMISED = {*aiohttp.__all__, *web.__all__, "aiohttp", "hdrs", "web"}
PARSER_MODULE = PACKAGE / "http" / "server" / "request_parser.py"


def imported_from_aiohttp(path: Path) -> set[str]:
    """Return the names that a module imports from aiohttp or one of its modules."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "aiohttp":
            names |= {each.name for each in node.names}
        elif isinstance(node, ast.Import):
            names |= {each.name for each in node.names if each.name.split(".")[0] == "aiohttp"}
    return names


def test_only_one_module_imports_what_aiohttp_does_not_promise() -> None:
    """A new name there needs a test here."""
    found = {
        path: unpromised
        for path in sorted(PACKAGE.rglob("*.py"))
        if (unpromised := imported_from_aiohttp(path) - PROMISED)
    }
    parser_names = {"HttpProcessingError", "HttpRequestParser", "InvalidURLError", "LineTooLong"}
    assert found == {PARSER_MODULE: parser_names}


@pytest.mark.parametrize("folder", ["http", "pipeline"])
def test_only_one_module_on_the_request_path_imports_from_aiohttp(folder: str) -> None:
    """Everything else there is the gateway's own."""
    modules = {*(PACKAGE / folder).rglob("*.py")}
    assert modules
    assert [path for path in modules - {PARSER_MODULE} if imported_from_aiohttp(path)] == []
