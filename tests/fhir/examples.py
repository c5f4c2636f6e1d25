"""The sandbox's example data, and the exact paths of the links in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gateway.sandbox

DATA = Path(gateway.sandbox.__file__).with_name("data")
FILES = sorted([*DATA.glob("*.json"), *DATA.glob("xml/*.xml")])
PLATFORM = "https://playground.dhp.uz/fhir"

# Every path whose value changes; all other values, and all other files, stay unchanged.
CHANGES: dict[str, set[str]] = {
    "bundle-searchset-page2": {
        "link/0/url",
        "link/1/url",
        "link/2/url",
        "entry/0/fullUrl",
        "entry/1/fullUrl",
        "entry/2/fullUrl",
    },
    "bundle-transaction": {"entry/4/fullUrl"},
    "diagnosticreport-cbc": {"subject/reference", "presentedForm/0/url"},
    "documentreference-report": {"content/0/attachment/url"},
}


def strings(value: Any, place: str = "") -> dict[str, str]:
    """Return every string of a JSON value by its path."""
    if isinstance(value, str):
        return {place: value}
    members = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for key, item in members if isinstance(value, dict | list) else ():
        if isinstance(item, str | dict | list):
            found |= strings(item, f"{place}/{key}".lstrip("/"))
    return found
