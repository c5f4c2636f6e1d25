"""Finds the parameters that a searchset reports as unused in its `outcome` entries.

A server may add an OperationOutcome to the matches (FHIR R5 search, section 3.2.1.4), in which free
text describes the parameter that was left out: only the codes and the names are read here.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from json import JSONDecoder
from typing import Any, Final

from gateway.fhir.links.json_text import plainly_spelled

_WORD: Final = b"OperationOutcome"
_QUOTED: Final = b'"OperationOutcome"'
# Objects around the word that are parsed; `resourceType` is nearly always the first member.
_MAX_TRIED_OBJECTS: Final = 64
_MAX_OUTCOMES: Final = 16
_DECODE: Final = JSONDecoder().raw_decode
_XML: Final = re.compile(rb"<OperationOutcome\b.*?</OperationOutcome>", re.DOTALL)
_XML_ISSUE: Final = re.compile(r"<issue>.*?</issue>", re.DOTALL)
_XML_CODE: Final = re.compile(r"<code\s+value=\"([^\"]*)\"")
_XML_VALUE: Final = re.compile(r"<(?:diagnostics|text|expression|location)\s+value=\"([^\"]*)\"")
# Codes by which platforms also report that nothing matched, which is no complaint.
_ABOUT_MATCHES: Final = frozenset(("not-found", "deleted", "success"))
_ABOUT_PARAMETERS: Final = frozenset(("not-supported", "invalid", "value", "code-invalid"))
_LEFT_OUT: Final = re.compile(
    r"ignor|unknown|support|understood|recogni|invalid|not (?:a )?(?:valid|found|used)", re.I
)
# The names after this text are those of valid parameters.
_OTHERS: Final = re.compile(r"\b(?:valid|allowed|supported) (?:search )?param|\bexpected\b", re.I)


def rejected_parameters(body: bytes, names: Iterable[str], *, xml: bool) -> frozenset[str]:
    """Return those of `names` that `outcome` entries at the start of a searchset complain about."""
    if not xml:
        body = plainly_spelled(body)
    if _WORD not in body:
        return frozenset()
    found: set[str] = set()
    name_set = frozenset(names)
    for code, text in _xml_issues(body) if xml else _json_issues(body):
        found |= _rejected_names(code, text, name_set)
    return frozenset(found)


def _rejected_names(code: str, text: str, names: frozenset[str]) -> frozenset[str]:
    if code in _ABOUT_MATCHES:
        return frozenset()
    if code not in _ABOUT_PARAMETERS and _LEFT_OUT.search(text) is None:
        return frozenset()
    complaint = _OTHERS.split(text, 1)[0]
    named = frozenset(name for name in names if _names(complaint, name))
    # A `not-supported` without a text may be about any of the parameters.
    return names if not named and code == "not-supported" and not complaint.strip() else named


def _names(text: str, name: str) -> bool:
    base = name.partition(":")[0]
    return re.search(rf"(?<![\w.\-]){re.escape(base)}(?![\w\-])", text) is not None


def _json_issues(body: bytes) -> Iterator[tuple[str, str]]:
    at = body.find(_QUOTED)
    for _ in range(_MAX_OUTCOMES):
        if at < 0:
            return
        for issue in _list(_outcome_around(body, at).get("issue")):
            yield str(issue.get("code")), " ".join(_texts(issue)).replace("http.", "")
        at = body.find(_QUOTED, at + 1)


def _outcome_around(body: bytes, at: int) -> dict[str, Any]:
    """Return the resource whose type stands at `at`, {} where no complete one is found."""
    begin = at
    for _ in range(_MAX_TRIED_OBJECTS):
        begin = body.rfind(b"{", 0, begin)
        if begin < 0:
            break
        try:
            value, _ = _DECODE(body[begin:].decode("utf-8", "replace"))
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and value.get("resourceType") == "OperationOutcome":
            return value
    return {}


def _texts(issue: dict[str, Any]) -> Iterator[str]:
    details = issue.get("details")
    yield str(issue.get("diagnostics") or "")
    yield str(details.get("text") or "") if isinstance(details, dict) else ""
    for member in ("expression", "location"):
        values = issue.get(member)
        yield from map(str, values if isinstance(values, list) else ())


def _list(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _xml_issues(body: bytes) -> Iterator[tuple[str, str]]:
    for outcome in _XML.findall(body)[:_MAX_OUTCOMES]:
        for issue in _XML_ISSUE.findall(outcome.decode("utf-8", "replace")):
            code = _XML_CODE.search(issue)
            text = " ".join(html.unescape(value) for value in _XML_VALUE.findall(issue))
            yield "" if code is None else code[1], text.replace("http.", "")
