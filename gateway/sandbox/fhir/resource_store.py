"""The store of the platform: every version of every resource, in memory only.

It implements neither HTTP nor FHIR rules; `Interactions` decides what is allowed. All methods are
synchronous, so that each is atomic for other requests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from gateway.sandbox.fhir.json_codec import JsonObject, render

# Limits the memory that a client can fill by uploading reports for hours.
MAX_BINARY_BYTES: Final = 64 * 1024 * 1024

_BINARY: Final = "Binary"

Method = Literal["POST", "PUT", "DELETE"]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a resource.

    `resource` is None for a deletion, and for a version whose content was discarded. `body` is the
    serialized resource, except for a Binary, whose content would be in memory twice.
    """

    type: str
    id: str
    number: int
    modified: datetime
    method: Method
    sequence: int
    resource: JsonObject | None = None
    body: bytes = b""
    searchable_from: float = 0.0

    @property
    def etag(self) -> str:
        """The weak entity tag of the version (FHIR R5 http, 3.2.0.1.3)."""
        return f'W/"{self.number}"'

    @property
    def path(self) -> str:
        """The path of the version relative to the base URL."""
        return f"{self.type}/{self.id}/_history/{self.number}"


class ResourceStore:
    """Resources by type and id, with their histories; `clock` returns Unix time.

    `searchable` returns a write only `search_lag` seconds later. Only the newest Binaries are
    retained: memory stays bounded, and a trial that uploads for hours continues.
    """

    def __init__(self, clock: Callable[[], float], search_lag: float = 0.0) -> None:
        self._clock = clock
        self._search_lag = search_lag
        self._histories: dict[Key, tuple[Version, ...]] = {}
        self._sequence = 0

    def load(self, resource: JsonObject) -> None:
        """Store a resource of the example data unchanged, with its id and its `meta`."""
        meta: JsonObject = resource["meta"]
        self._append(
            Version(
                type=resource["resourceType"],
                id=resource["id"],
                number=int(meta["versionId"]),
                modified=datetime.fromisoformat(meta["lastUpdated"]).astimezone(UTC),
                method="PUT",
                sequence=self._next(),
                resource=resource,
                body=render(resource),
            )
        )

    def put(self, type_: str, id_: str, resource: JsonObject, method: Method) -> Version:
        """Store a new version, with `id`, `meta.versionId` and `meta.lastUpdated` set."""
        number, moment = self._number(type_, id_), self.now()
        stamped = _stamp(resource, id_, number, moment)
        version = Version(
            type=type_,
            id=id_,
            number=number,
            modified=moment,
            method=method,
            sequence=self._next(),
            resource=stamped,
            body=b"" if type_ == _BINARY else render(stamped),
            searchable_from=self._clock() + self._search_lag,
        )
        self._append(version)
        if type_ == _BINARY:
            self._forget_binaries()
        return version

    def delete(self, type_: str, id_: str) -> Version:
        """Store a deletion. Earlier versions stay readable."""
        number, searchable_from = self._number(type_, id_), self._clock() + self._search_lag
        moment, sequence = self.now(), self._next()
        return self._append(
            Version(type_, id_, number, moment, "DELETE", sequence, searchable_from=searchable_from)
        )

    def current(self, type_: str, id_: str) -> Version | None:
        """Return the newest version, which may be a deletion; None if there never was one."""
        history = self._histories.get((type_, id_))
        return history[-1] if history else None

    def history(self, type_: str, id_: str | None = None) -> list[Version]:
        """Return the versions of one resource or of a whole type, newest first."""
        versions = [
            version
            for key, history in self._histories.items()
            if key[0] == type_ and id_ in (None, key[1])
            for version in history
        ]
        return sorted(versions, key=lambda version: version.sequence, reverse=True)

    def current_resources(self, type_: str) -> list[Version]:
        """Return the current versions of a type's resources, without deleted ones, oldest first."""
        return [
            history[-1]
            for key, history in self._histories.items()
            if key[0] == type_ and history[-1].resource is not None
        ]

    def searchable(self, type_: str) -> list[Version]:
        """Return the versions that a search finds: those that were current `search_lag` ago."""
        now = self._clock()
        known = (
            next((version for version in reversed(history) if version.searchable_from <= now), None)
            for key, history in self._histories.items()
            if key[0] == type_
        )
        return [
            version for version in known if version is not None and version.resource is not None
        ]

    def snapshot(self) -> Mapping[Key, tuple[Version, ...]]:
        """Return the complete state, for `restore`."""
        return dict(self._histories)

    def restore(self, snapshot: Mapping[Key, tuple[Version, ...]]) -> None:
        """Undo all changes since the snapshot was taken."""
        self._histories = dict(snapshot)

    def _append(self, version: Version) -> Version:
        key = (version.type, version.id)
        self._histories[key] = (*self._histories.get(key, ()), version)
        return version

    def _forget_binaries(self) -> None:
        """Discard the oldest contents beyond the limit. The newest is retained, however long."""
        newest, *older = [
            version for version in self.history(_BINARY) if version.resource is not None
        ]
        retained_bytes = _content_length(newest)
        for version in older:
            retained_bytes += _content_length(version)
            if retained_bytes > MAX_BINARY_BYTES:
                self._forget(version)

    def _forget(self, version: Version) -> None:
        key = (version.type, version.id)
        gone = replace(version, resource=None, body=b"")
        self._histories[key] = tuple(
            gone if stored is version else stored for stored in self._histories[key]
        )

    def _number(self, type_: str, id_: str) -> int:
        current = self.current(type_, id_)
        return current.number + 1 if current else 1

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def now(self) -> datetime:
        """Return the platform's current time in UTC."""
        return datetime.fromtimestamp(self._clock(), UTC)


def _content_length(binary: Version) -> int:
    return len((binary.resource or {}).get("data", ""))


def instant(moment: datetime) -> str:
    """Return a FHIR instant in UTC with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamp(resource: JsonObject, id_: str, number: int, moment: datetime) -> JsonObject:
    stamps = {"versionId": str(number), "lastUpdated": instant(moment)}
    client_meta = {k: v for k, v in resource.get("meta", {}).items() if k not in stamps}
    rest = {k: v for k, v in resource.items() if k not in ("resourceType", "id", "meta")}
    return {
        "resourceType": resource["resourceType"],
        "id": id_,
        "meta": stamps | client_meta,
    } | rest
