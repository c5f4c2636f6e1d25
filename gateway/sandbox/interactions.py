"""The FHIR interactions as the national platform does them, on the store and without HTTP.

Every method raises FhirError. Resources come in validated (`Validator`).
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

from gateway.sandbox import bundles
from gateway.sandbox.codec import JsonObject
from gateway.sandbox.outcomes import FhirError, Issue, fhir_error, information
from gateway.sandbox.parameters import INTERACTIONS
from gateway.sandbox.search import Pairs, Query, parse_query
from gateway.sandbox.store import ResourceStore, Version

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ENTITY_TAG: Final = re.compile(r'(?:W/)?"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Result:
    """What an interaction gives: an HTTP status, a resource, and the version it is about."""

    status: int
    resource: JsonObject
    version: Version | None = None
    located: bool = False


class Interactions:
    """Reads and writes of one store; `base` is the absolute URL that stands in links."""

    def __init__(self, store: ResourceStore, base: str) -> None:
        self._store = store
        self._base = base

    def read(self, type_: str, id_: str) -> Result:
        """The current version; 404 when there never was one, 410 when it was deleted."""
        self.require(type_, "read")
        return _found(self._existing(type_, id_))

    def vread(self, type_: str, id_: str, number: str) -> Result:
        """One version; 404 when there is none of that number, 410 when it is the deletion."""
        self.require(type_, "vread")
        _require_uuid(type_, id_)
        for version in self._store.history(type_, id_):
            if str(version.number) == number:
                return _found(version)
        raise fhir_error(404, "not-found", f"{type_}/{id_} has no such version")

    def create(
        self,
        type_: str,
        resource: JsonObject,
        *,
        if_none_exist: str | None = None,
        id_: str | None = None,
    ) -> Result:
        """Keep a new resource under a new id; with `if_none_exist` only when nothing matches it."""
        self.require(type_, "create")
        if if_none_exist is not None and (existing := self.existing(type_, if_none_exist)):
            return Result(200, existing.resource or {}, existing, located=True)
        version = self._store.put(type_, id_ or new_id(), resource, "POST")
        return Result(201, version.resource or {}, version, located=True)

    def update(self, type_: str, id_: str, resource: JsonObject, if_match: str | None) -> Result:
        """A new version; 412 unless `if_match` names the current one. Never creates."""
        self.require(type_, "update")
        _require_uuid(type_, id_)
        if resource.get("id") != id_:
            raise fhir_error(400, "invalid", "the id in the body is not the one in the URL", "id")
        if if_match is None:
            raise fhir_error(
                412, "required", "an update needs If-Match with the version it is based on"
            )
        _require_match(self._existing(type_, id_), if_match)
        version = self._store.put(type_, id_, resource, "PUT")
        return Result(200, version.resource or {}, version)

    def delete(self, type_: str, id_: str, if_match: str | None = None) -> Result:
        """Mark as deleted; saying it again is fine."""
        self.require(type_, "delete")
        _require_uuid(type_, id_)
        current = self._store.current(type_, id_)
        if current is None:
            raise _not_found(type_, id_)
        if current.deleted:
            return Result(200, information(f"{type_}/{id_} was deleted before"), current)
        if if_match is not None:
            _require_match(current, if_match)
        deleted = self._store.delete(type_, id_)
        return Result(200, information(f"{type_}/{id_} is deleted"), deleted)

    def search(self, type_: str, pairs: Pairs, *, strict: bool = False) -> Result:
        """A page of what matches; with `strict` an unknown parameter is an error."""
        self.require(type_, "search")
        page, rest = bundles.split_paging(pairs)
        query = parse_query(type_, rest, self._base)
        if strict and query.ignored:
            names = ", ".join(sorted(set(query.ignored)))
            raise fhir_error(400, "not-supported", f"{type_} has no search parameter {names}")
        found = self._matching(type_, query)
        bundle = bundles.searchset(self._base, type_, found, page, query.applied)
        return Result(200, bundle)

    def history(self, type_: str, id_: str | None, pairs: Pairs) -> Result:
        """A page of the versions of one resource, or of all resources of a type."""
        self.require(type_, "history")
        page, _ = bundles.split_paging(pairs)
        if id_ is None:
            return Result(200, bundles.history(self._base, type_, self._store.history(type_), page))
        _require_uuid(type_, id_)
        versions = self._store.history(type_, id_)
        if not versions:
            raise _not_found(type_, id_)
        return Result(200, bundles.history(self._base, f"{type_}/{id_}", versions, page))

    def existing(self, type_: str, if_none_exist: str) -> Version | None:
        """The one resource that a conditional create would double; 412 when there are several."""
        query = parse_query(type_, parse_qsl(if_none_exist.lstrip("?")), self._base)
        # Ignoring a criterion would find, and hand out, some other resource.
        if query.ignored or not query.criteria:
            raise fhir_error(400, "not-supported", "If-None-Exist needs known search parameters")
        found = self._matching(type_, query)
        if len(found) > 1:
            raise fhir_error(412, "multiple-matches", "If-None-Exist matches several resources")
        return found[0] if found else None

    def require(self, type_: str, interaction: str) -> None:
        """404 for an unknown type, 405 for an interaction that it does not have."""
        allowed = INTERACTIONS.get(type_)
        if allowed is None:
            raise fhir_error(404, "not-supported", "there is no resource type of that name here")
        if interaction not in allowed:
            raise fhir_error(405, "not-supported", f"{type_} does not support {interaction}")

    def _matching(self, type_: str, query: Query) -> Sequence[Version]:
        return [v for v in self._store.living(type_) if query.matches(v.resource or {})]

    def _existing(self, type_: str, id_: str) -> Version:
        _require_uuid(type_, id_)
        current = self._store.current(type_, id_)
        if current is None:
            raise _not_found(type_, id_)
        if current.deleted:
            raise _gone(current)
        return current


def new_id() -> str:
    """An id as the platform gives them."""
    return str(uuid.uuid4())


def _found(version: Version) -> Result:
    if version.resource is None:
        raise _gone(version)
    return Result(200, version.resource, version)


def _require_uuid(type_: str, id_: str) -> None:
    if not _UUID.fullmatch(id_):
        raise fhir_error(400, "invalid", f"the id of a {type_} is a UUID in lower case")


def _require_match(current: Version, if_match: str) -> None:
    if if_match.strip() == "*" or str(current.number) in _ENTITY_TAG.findall(if_match):
        return
    text = f"If-Match does not name the current version of {current.type}/{current.id}"
    raise FhirError(412, Issue("conflict", text), headers=(("ETag", current.etag),))


def _not_found(type_: str, id_: str) -> FhirError:
    return fhir_error(404, "not-found", f"{type_}/{id_} does not exist")


def _gone(version: Version) -> FhirError:
    issue = Issue("deleted", f"{version.type}/{version.id} was deleted")
    return FhirError(410, issue, headers=(("ETag", version.etag),))
