"""Bundles posted to the base URL: transactions, which are atomic, and batches.

FHIR R5 http, 3.2.0.11. The entries of a Bundle are parsed and formally checked. A transaction is
parsed and validated first. Applying it is synchronous, so that no other request sees a part of it,
and a failure is undone with a snapshot of the store.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from gateway.sandbox.fhir.errors import FhirError, fhir_error, informational_outcome
from gateway.sandbox.fhir.interactions import InteractionResult, Interactions, new_id
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.resource_store import ResourceStore, Version, instant
from gateway.sandbox.fhir.resource_validation import Validator

# The order in which a server processes the methods of a transaction.
_ORDER: Final = ("DELETE", "POST", "PUT", "GET")
_WITH_RESOURCE: Final = ("POST", "PUT")


@dataclass(frozen=True, slots=True)
class BundleEntry:
    """One request of a Bundle.

    `path` holds the segments after the type. `expression` is the FHIRPath of the entry.
    """

    expression: str
    method: str
    type: str
    path: tuple[str, ...]
    query: str
    full_url: str | None = None
    resource: JsonObject | None = None
    if_match: str | None = None
    if_none_exist: str | None = None


def _read_entry(index: int, raw: Any, base: str) -> BundleEntry:
    """Parse one entry of a Bundle that was posted. Raises FhirError 400."""
    expression = f"Bundle.entry[{index}]"
    request = raw.get("request") if isinstance(raw, dict) else None
    if not isinstance(request, dict):
        raise fhir_error(400, "required", "every entry needs a request", f"{expression}.request")
    method, url = request.get("method"), request.get("url")
    if method not in _ORDER or not isinstance(url, str):
        text = f"a url, and one of the methods {', '.join(_ORDER)}, are needed"
        raise fhir_error(400, "value", text, f"{expression}.request")
    path, _, query = url.removeprefix(f"{base}/").partition("?")
    type_, *rest = (unquote(segment) for segment in path.split("/"))
    return BundleEntry(
        expression=expression,
        method=method,
        type=type_,
        path=tuple(rest),
        query=query,
        full_url=_text(raw, "fullUrl", expression),
        resource=_resource(raw, type_, expression) if method in _WITH_RESOURCE else None,
        if_match=_text(request, "ifMatch", f"{expression}.request"),
        if_none_exist=_text(request, "ifNoneExist", f"{expression}.request"),
    )


def _text(holder: JsonObject, name: str, expression: str) -> str | None:
    value = holder.get(name)
    if value is not None and not isinstance(value, str):
        raise fhir_error(400, "structure", "a string is needed", f"{expression}.{name}")
    return value


def _resource(raw: JsonObject, type_: str, expression: str) -> JsonObject:
    resource = raw.get("resource")
    if not isinstance(resource, dict) or resource.get("resourceType") != type_:
        text = "a resource of the type in request.url is needed"
        raise fhir_error(400, "required", text, f"{expression}.resource")
    return resource


@dataclass(frozen=True, slots=True)
class Transactions:
    """Processes Bundles with the interactions of one store."""

    interactions: Interactions
    store: ResourceStore
    validator: Validator

    async def process(self, bundle: JsonObject, return_preference: str) -> JsonObject:
        """Return the response Bundle; `return_preference` is the value of `Prefer: return`.

        Raises FhirError.
        """
        kind = bundle.get("type")
        raw_entries = bundle.get("entry", [])
        if kind not in ("transaction", "batch"):
            raise fhir_error(400, "value", "transaction or batch is needed", "Bundle.type")
        if not isinstance(raw_entries, list):
            raise fhir_error(400, "structure", "an array is needed", "Bundle.entry")
        if kind == "batch":
            entries = [
                await self._batch_entry(i, raw, return_preference)
                for i, raw in enumerate(raw_entries)
            ]
        else:
            entries = await self._transaction(raw_entries, return_preference)
        response: JsonObject = {
            "resourceType": "Bundle",
            "id": new_id(),
            "type": f"{kind}-response",
        }
        return response | ({"entry": entries} if entries else {})

    async def _batch_entry(self, index: int, raw: Any, return_preference: str) -> JsonObject:
        try:
            entry = self._read(index, raw)
            await self._validate(entry)
            return _response_entry(
                self.interactions.base, entry, self._perform(entry), return_preference
            )
        except FhirError as error:
            outcome = error.outcome()
            return {"response": {"status": _status(error.status), "outcome": outcome}}

    async def _transaction(
        self, raw_entries: Sequence[Any], return_preference: str
    ) -> list[JsonObject]:
        entries = [self._read(index, raw) for index, raw in enumerate(raw_entries)]
        _require_distinct(entries)
        for entry in entries:
            await self._validate(entry)
        snapshot = self.store.snapshot()
        try:
            results = self._apply(entries)
        except FhirError:
            self.store.restore(snapshot)
            raise
        return [
            _response_entry(self.interactions.base, entry, result, return_preference)
            for entry, result in zip(entries, results, strict=True)
        ]

    def _read(self, index: int, raw: Any) -> BundleEntry:
        entry = _read_entry(index, raw, self.interactions.base)
        return entry if self.interactions.conditional else replace(entry, if_none_exist=None)

    async def _validate(self, entry: BundleEntry) -> None:
        if entry.resource is not None:
            await self.validator.require_valid(entry.resource, f"{entry.expression}.resource")

    def _apply(self, entries: Sequence[BundleEntry]) -> list[InteractionResult]:
        existing = [self._existing(entry) for entry in entries]
        ids = [version.id if version else new_id() for version in existing]
        links = _links(entries, ids)
        results: dict[int, InteractionResult] = {}
        for index in sorted(range(len(entries)), key=lambda i: _ORDER.index(entries[i].method)):
            found = existing[index]
            if found is not None:
                results[index] = InteractionResult(
                    200, found.resource or {}, found, has_location=True
                )
            else:
                entry = entries[index]
                resource = _replace(entry.resource, links, entry.expression)
                entry = replace(entry, resource=resource, if_none_exist=None)
                results[index] = self._perform(entry, ids[index])
        return [results[index] for index in range(len(entries))]

    def _existing(self, entry: BundleEntry) -> Version | None:
        """Return the match of a conditional create, before the transaction changes anything."""
        if entry.method != "POST":
            return None
        with _entry_errors(entry):
            return self.interactions.existing(entry.type, entry.if_none_exist)

    def _perform(self, entry: BundleEntry, id_: str | None = None) -> InteractionResult:
        resource = entry.resource or {}
        with _entry_errors(entry):
            match entry.method, entry.path:
                case "POST", ():
                    return self.interactions.create(
                        entry.type, resource, if_none_exist=entry.if_none_exist, id_=id_
                    )
                case "PUT", (target,):
                    return self.interactions.update(entry.type, target, resource, entry.if_match)
                case "DELETE", (target,):
                    return self.interactions.delete(entry.type, target, entry.if_match)
                case "GET", _:
                    return self._get(entry)
            raise fhir_error(400, "not-supported", "no such interaction")

    def _get(self, entry: BundleEntry) -> InteractionResult:
        match entry.path:
            case ():
                return self.interactions.search(entry.type, parse_qsl(entry.query))
            case (id_,):
                return self.interactions.read(entry.type, id_)
            case (id_, "_history", number):
                return self.interactions.vread(entry.type, id_, number)
        raise fhir_error(400, "not-supported", "no such interaction")


@contextmanager
def _entry_errors(entry: BundleEntry) -> Iterator[None]:
    """Add the expression of the entry to the issues of errors."""
    try:
        yield
    except FhirError as error:
        issues = (issue.below(entry.expression) for issue in error.issues)
        raise FhirError(error.status, *issues, headers=error.headers) from None


def _require_distinct(entries: Sequence[BundleEntry]) -> None:
    """Raise FhirError 400 if two entries write the same resource (FHIR R5 http, 3.2.0.11.2)."""
    seen: set[tuple[str, ...]] = set()
    for entry in entries:
        if entry.method in ("PUT", "DELETE"):
            key = (entry.type, *entry.path)
        elif entry.method == "POST" and entry.if_none_exist is not None:
            key = (entry.type, "?", entry.if_none_exist)
        else:
            continue
        if key in seen:
            text = "another entry writes the same resource"
            raise fhir_error(400, "invalid", text, entry.expression)
        seen.add(key)


def _links(entries: Sequence[BundleEntry], ids: Sequence[str]) -> dict[str, str]:
    """Return the references that replace fullUrls of entries which the transaction writes."""
    links = {}
    for entry, id_ in zip(entries, ids, strict=True):
        if entry.full_url is not None and entry.method in _WITH_RESOURCE:
            target = id_ if entry.method == "POST" else "/".join(entry.path)
            links[entry.full_url] = f"{entry.type}/{target}"
    return links


def _replace(node: Any, links: Mapping[str, str], expression: str) -> Any:
    if isinstance(node, list):
        return [_replace(item, links, expression) for item in node]
    if isinstance(node, dict):
        reference = node.get("reference")
        dangling = isinstance(reference, str) and reference.startswith("urn:uuid:")
        if dangling and reference not in links:
            raise fhir_error(400, "not-found", "a urn:uuid reference leads nowhere", expression)
        return {key: _replace(value, links, expression) for key, value in node.items()}
    return links.get(node, node) if isinstance(node, str) else node


def _response_entry(
    base: str, entry: BundleEntry, result: InteractionResult, return_preference: str
) -> JsonObject:
    version = result.version
    response: JsonObject = {"status": _status(result.status)}
    if version is not None:
        if entry.method in _WITH_RESOURCE:
            response["location"] = version.path
        response["etag"] = version.etag
        response["lastModified"] = instant(version.modified)
    if return_preference == "OperationOutcome" and entry.method != "GET":
        response["outcome"] = informational_outcome("done")
    shown: JsonObject = {}
    if entry.method == "GET" or (
        return_preference == "representation" and entry.method != "DELETE"
    ):
        shown = {"resource": result.resource}
        if version is not None:
            shown = {"fullUrl": f"{base}/{version.type}/{version.id}", **shown}
    return shown | {"response": response}


def _status(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"
