"""The FHIR interactions as the national platform implements them, on the store, without HTTP.

Every method raises FhirError. Resources must be validated already (`Validator`).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from gateway.sandbox.fhir import result_bundles
from gateway.sandbox.fhir.declared_types import Declared
from gateway.sandbox.fhir.errors import FhirError, Issue, fhir_error, informational_outcome
from gateway.sandbox.fhir.json_codec import JsonObject
from gateway.sandbox.fhir.resource_store import ResourceStore, Version
from gateway.sandbox.fhir.search import Pairs, Query, parse_query

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class InteractionResult:
    """The result of an interaction: an HTTP status, a resource, and the version concerned.

    `has_location`: the response has a Location field.
    """

    status: int
    resource: JsonObject
    version: Version | None = None
    has_location: bool = False


@dataclass(frozen=True, slots=True)
class Interactions:
    """Interactions with one store; `base` is the absolute URL in links.

    `types` are the declared types. The condition of a create is evaluated only if `conditional`.
    """

    store: ResourceStore
    base: str
    types: Declared
    conditional: bool

    def read(self, type_: str, id_: str) -> InteractionResult:
        """Return the current version; 404 if there never was one, 410 if it was deleted."""
        self.require(type_, "read")
        return _read_result(self._existing(type_, id_))

    def vread(self, type_: str, id_: str, number: str) -> InteractionResult:
        """Return one version; 404 if there is none of that number, 410 if it is the deletion."""
        self.require(type_, "vread")
        require_uuid(type_, id_)
        for version in self.store.history(type_, id_):
            if str(version.number) == number:
                return _read_result(version)
        raise fhir_error(404, "not-found", f"{type_}/{id_} has no such version")

    def create(
        self,
        type_: str,
        resource: JsonObject,
        *,
        if_none_exist: str | None = None,
        id_: str | None = None,
    ) -> InteractionResult:
        """Store a new resource under a new id; with `if_none_exist` only if none matches it."""
        if existing := self.existing(type_, if_none_exist):
            return InteractionResult(200, existing.resource or {}, existing, has_location=True)
        self._require_new_canonical(type_, resource)
        version = self.store.put(type_, id_ or new_id(), resource, "POST")
        return InteractionResult(201, version.resource or {}, version, has_location=True)

    def update(
        self, type_: str, id_: str, resource: JsonObject, if_match: str | None
    ) -> InteractionResult:
        """Store a new version; 412 unless `if_match` names the current one. Never creates."""
        self.require(type_, "update")
        require_uuid(type_, id_)
        if resource.get("id") != id_:
            raise fhir_error(400, "invalid", "the id in the body is not the one in the URL", "id")
        if if_match is None:
            raise _version_mismatch("an update needs If-Match with the version it is based on")
        _require_match(self._existing(type_, id_), if_match)
        version = self.store.put(type_, id_, resource, "PUT")
        return InteractionResult(200, version.resource or {}, version)

    def delete(self, type_: str, id_: str, if_match: str | None = None) -> InteractionResult:
        """Mark the resource as deleted. A repeated deletion succeeds."""
        self.require(type_, "delete")
        require_uuid(type_, id_)
        current = self.store.current(type_, id_)
        if current is None:
            raise _not_found(type_, id_)
        if current.resource is None:
            return InteractionResult(
                200, informational_outcome(f"{type_}/{id_} was deleted before"), current
            )
        if if_match is not None:
            _require_match(current, if_match)
        deleted = self.store.delete(type_, id_)
        return InteractionResult(200, informational_outcome(f"{type_}/{id_} is deleted"), deleted)

    def search(self, type_: str, pairs: Pairs, *, strict: bool = False) -> InteractionResult:
        """Return a page of the matches; with `strict` an unknown parameter is an error."""
        self.require(type_, "search-type")
        page, rest = result_bundles.split_paging(pairs)
        query = parse_query(self.types[type_].parameters, rest, self.base)
        if strict and query.ignored:
            names = ", ".join(sorted(set(query.ignored)))
            raise fhir_error(400, "not-supported", f"{type_} has no search parameter {names}")
        found = _matching(self.store.searchable(type_), query)
        bundle = result_bundles.searchset(self.base, type_, found, page, query.applied)
        return InteractionResult(200, bundle)

    def history(self, type_: str, id_: str | None, pairs: Pairs) -> InteractionResult:
        """Return a page of the versions of one resource, or of all resources of a type."""
        self.require(type_, "history-type" if id_ is None else "history-instance")
        page, _ = result_bundles.split_paging(pairs)
        if id_ is None:
            return InteractionResult(
                200, result_bundles.history(self.base, type_, self.store.history(type_), page)
            )
        require_uuid(type_, id_)
        versions = self.store.history(type_, id_)
        if not versions:
            raise _not_found(type_, id_)
        return InteractionResult(
            200, result_bundles.history(self.base, f"{type_}/{id_}", versions, page)
        )

    def existing(self, type_: str, if_none_exist: str | None) -> Version | None:
        """Return the resource that a conditional create would duplicate; 412 if several match."""
        self.require(type_, "create")
        if if_none_exist is None or not self.conditional:
            return None
        pairs = parse_qsl(if_none_exist.lstrip("?"))
        query = parse_query(self.types[type_].parameters, pairs, self.base)
        # If a criterion were ignored, an unrelated resource could match and be returned.
        if query.ignored or not query.criteria:
            raise fhir_error(400, "not-supported", "If-None-Exist needs known search parameters")
        found = _matching(self.store.current_resources(type_), query)
        if len(found) > 1:
            raise fhir_error(412, "multiple-matches", "If-None-Exist matches several resources")
        return found[0] if found else None

    def require(self, type_: str, interaction: str) -> None:
        """Raise FhirError 404 for an unknown type, 405 for an unsupported interaction."""
        declared = self.types.get(type_)
        if declared is None:
            raise fhir_error(404, "not-supported", "there is no resource type of that name here")
        if interaction not in declared.interactions:
            raise fhir_error(405, "not-supported", f"{type_} does not support {interaction}")

    def _require_new_canonical(self, type_: str, resource: JsonObject) -> None:
        """Raise FhirError 409 if another resource has the same canonical URL and version.

        References to the canonical URL would be ambiguous.
        """
        if "url" not in self.types[type_].parameters or "url" not in resource:
            return
        canonical = resource["url"], resource.get("version")
        for other in self.store.current_resources(type_):
            if other.resource and canonical == (
                other.resource.get("url"),
                other.resource.get("version"),
            ):
                text = f"{other.type}/{other.id} has this url and version already"
                raise fhir_error(409, "duplicate", text, f"{type_}.url")

    def _existing(self, type_: str, id_: str) -> Version:
        require_uuid(type_, id_)
        current = self.store.current(type_, id_)
        if current is None:
            raise _not_found(type_, id_)
        if current.resource is None:
            raise _gone(current)
        return current


def new_id() -> str:
    """Return a new id in the platform's format."""
    return str(uuid.uuid4())


def _matching(versions: Iterable[Version], query: Query) -> list[Version]:
    return [version for version in versions if query.matches(version.resource or {})]


def _read_result(version: Version) -> InteractionResult:
    if version.resource is None:
        raise _gone(version)
    return InteractionResult(200, version.resource, version)


def require_uuid(type_: str, id_: str) -> None:
    """Raise FhirError 400 unless the id has the platform's format."""
    if not _UUID.fullmatch(id_):
        raise fhir_error(400, "invalid", f"the id of a {type_} is a UUID in lower case")


def _require_match(current: Version, if_match: str) -> None:
    if if_match.strip() == "*" or str(current.number) in _ENTITY_TAG.findall(if_match):
        return
    text = f"If-Match does not name the current version of {current.type}/{current.id}"
    raise _version_mismatch(text, current)


def _version_mismatch(text: str, current: Version | None = None) -> FhirError:
    headers = (("ETag", current.etag),) if current else ()
    return FhirError(412, Issue("invalid", text, text="Version is mismatch"), headers=headers)


def _not_found(type_: str, id_: str) -> FhirError:
    return fhir_error(404, "not-found", f"{type_}/{id_} does not exist")


def _gone(version: Version) -> FhirError:
    reason = "was deleted" if version.method == "DELETE" else "made room for newer ones"
    issue = Issue("deleted", f"{version.type}/{version.id} {reason}")
    return FhirError(410, issue, headers=(("ETag", version.etag),))
