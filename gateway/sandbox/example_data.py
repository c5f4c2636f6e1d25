"""The example data: synthetic resources that are part of the package.

They are written with the base URL of the national playground. Loading replaces it by the sandbox's
base URL in links only. Text, identifiers and canonical URLs that look like links are unchanged
(data/README.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from typing import Any, Final

from gateway.sandbox.fhir.json_codec import JsonObject, parse

EXAMPLE_BASE: Final = "https://playground.dhp.uz/fhir"
PATIENT_ID: Final = "5d0c6f0a-1f1e-4c55-9a1b-000000000011"

_ATTACHMENT_NAMES: Final = frozenset({"attachment", "photo", "presentedForm", "valueAttachment"})


def page_text(name: str) -> str:
    """Return the text of a file of this package: a page or a part of one."""
    return files("gateway.sandbox").joinpath(name).read_text(encoding="utf-8")


def examples(base: str) -> list[JsonObject]:
    """Return all single resources and those found only in Bundles, with `base` in the links."""
    documents = [parse(file) for file in _files()]
    alone = [document for document in documents if document["resourceType"] != "Bundle"]
    bundles = [document for document in documents if document["resourceType"] == "Bundle"]
    known = {(resource["resourceType"], resource["id"]): resource for resource in alone}
    for resource in (entry for bundle in bundles for entry in _loadable(bundle)):
        known.setdefault((resource["resourceType"], resource["id"]), resource)
    return [relocate(known[key], base) for key in sorted(known)]


def terminology() -> list[JsonObject]:
    """Return the code systems, value sets and concept maps. They contain no links."""
    return [parse(file) for file in _files("terminology")]


def relocate(node: Any, base: str, name: str = "") -> Any:
    """Return a copy of a document in which the links start with `base`."""
    if isinstance(node, list):
        return [relocate(item, base, name) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: _move(value, base) if _is_link(key, value, name) else relocate(value, base, key)
        for key, value in node.items()
    }


def _is_link(key: str, value: Any, parent: str) -> bool:
    if not isinstance(value, str):
        return False
    if key == "url":
        return parent == "link" or parent in _ATTACHMENT_NAMES
    return key in ("fullUrl", "reference")


def _move(url: str, base: str) -> str:
    rest = url.removeprefix(EXAMPLE_BASE)
    moved = rest != url and (not rest or rest[0] in "/?#")
    return base + rest if moved else url


def _files(*below: str) -> Iterator[bytes]:
    folder = (files("gateway.sandbox") / "data").joinpath(*below)
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".json"):
            yield file.read_bytes()


def _loadable(bundle: JsonObject) -> Iterator[JsonObject]:
    """Yield the resources of a Bundle that the platform has stored: with an id and a version."""
    for entry in bundle["entry"]:
        resource: JsonObject = entry["resource"]
        if "id" in resource and "versionId" in resource.get("meta", {}):
            yield resource
