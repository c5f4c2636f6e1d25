"""Describes invalid YAML: the mistake and its line.

The parser reports the position where it cannot go on; the mistake is often above.
"""

from __future__ import annotations

import contextlib
import re
from typing import Any, Final

import yaml

from gateway.config.problems import Problem
from gateway.i18n import Message

# Where YAML begins another line; Python's splitlines() splits at more characters.
_BREAK: Final = re.compile(r"\r\n|[\n\r\x85\u2028\u2029]")
_NO_TEXT: Final = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_GENERAL_HINT: Final = Message("check indentation, colons and quotes there")


def syntax_problem(name: str, text: str, error: yaml.YAMLError, loader: Any) -> Problem:
    """Return the problem of the file `name`; `error` was raised when `loader` parsed its text."""
    if strange := _NO_TEXT.search(text):
        where = Message("line {line}", line=len(_BREAK.split(text[: strange.start()])))
        message = Message("holds a character that is no text")
        return Problem(
            name,
            message,
            Message("delete what stands there unseen; {look}", look=_GENERAL_HINT),
            where,
        )
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:
        return Problem(name, Message("is not valid YAML"), Message("save it as plain text"))
    lines = _BREAK.split(text)
    if mark.line < len(lines) and re.match(r" *\t", lines[mark.line]):
        hint = Message("indent with spaces; YAML takes no tabs there")
        return Problem(
            name,
            Message("is not valid YAML: a tab stands before the key"),
            hint,
            Message("line {line}", line=mark.line + 1),
        )
    parser_message = _QUOTED.sub(_mask_quoted, getattr(error, "problem", None) or "")
    what = Message.external(parser_message, Message("not readable"))
    mark = _origin(text, lines, error, mark, loader)
    hint = Message("{look}, and whether a bracket was left open above", look=_GENERAL_HINT)
    where = Message("line {line}, column {column}", line=mark.line + 1, column=mark.column + 1)
    return Problem(name, Message("is not valid YAML: {what}", what=what), hint, where)


_QUOTED: Final = re.compile(r"(['\"])(.*?)\1")


def _mask_quoted(quoted: re.Match[str]) -> str:
    """Mask quoted text: some of PyYAML's messages quote from the file, maybe part of a secret."""
    return quoted[0] if len(quoted[2]) == 1 else "…"


def _origin(text: str, lines: list[str], error: Any, mark: Any, loader: Any) -> Any:
    """Return the mark of the mistake, which the parser noticed only at `mark`."""
    context, context_mark = (
        getattr(error, "context", None) or "",
        getattr(error, "context_mark", None),
    )
    if context_mark is not None and context.startswith(_LEFT_OPEN):
        return context_mark
    before, last = _tokens(text, mark, loader)
    if context_mark is not None and context.startswith("while parsing a flow"):
        # A line indented no more than the line of the bracket is outside the brackets.
        inside = _indent(lines, mark) > _indent(lines, context_mark)
        return last.start_mark if inside and last is not None else context_mark
    if not isinstance(last, yaml.ScalarToken) or last.start_mark.line == last.end_mark.line:
        return mark
    # Several lines were taken for one text: its quotes were not closed, or its first line was meant
    # as a key and has no colon. After a colon, the next line has too much indentation.
    alone = before is None or before.end_mark.line < last.start_mark.line or not last.plain
    return last.start_mark if alone else mark


_LEFT_OPEN: Final = ("while scanning a simple key", "while scanning a quoted scalar")


def _tokens(text: str, mark: Any, loader: Any) -> tuple[Any, Any]:
    """Return the last two tokens that begin before a mark."""
    before = last = None
    with contextlib.suppress(yaml.YAMLError):
        for token in yaml.scan(text, Loader=loader):
            if token.start_mark.index >= mark.index:
                break
            if token.start_mark.index < token.end_mark.index:
                before, last = last, token
    return before, last


def _indent(lines: list[str], mark: Any) -> int:
    line = lines[mark.line] if mark.line < len(lines) else ""
    return len(line) - len(line.lstrip(" "))
