"""The platform's memory: every version of every resource, nothing on disk.

It knows no HTTP and no FHIR rules; `Interactions` decides what may be done to it. All methods are
synchronous, so that each takes effect as a whole as far as other requests can see.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from gateway.sandbox.codec import JsonObject, render

Method = Literal["POST", "PUT", "DELETE"]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Version:
    """One version of a resource; `resource` is None for the version that deleted it."""

    type: str
    id: str
    number: int
    modified: datetime
    method: Method
    sequence: int
    resource: JsonObject | None = None
    body: bytes = b""

    @property
    def deleted(self) -> bool:
        """Whether this version says that the resource is gone."""
        return self.resource is None

    @property
    def etag(self) -> str:
        """The weak entity tag that names the version (FHIR R5 http, 3.2.0.1.3)."""
        return f'W/"{self.number}"'

    @property
    def path(self) -> str:
        """Where the version is found, relative to the base."""
        return f"{self.type}/{self.id}/_history/{self.number}"


class ResourceStore:
    """Resources by type and id, with their histories; `clock` gives Unix time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._histories: dict[Key, tuple[Version, ...]] = {}
        self._sequence = 0

    def load(self, resource: JsonObject) -> None:
        """Keep a resource as it stands, with its id and its `meta`: for example data."""
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
        """Keep a new version, with `id`, `meta.versionId` and `meta.lastUpdated` set."""
        number, moment = self._number(type_, id_), self._now()
        stamped = _stamp(resource, id_, number, moment)
        version = Version(
            type=type_,
            id=id_,
            number=number,
            modified=moment,
            method=method,
            sequence=self._next(),
            resource=stamped,
            body=render(stamped),
        )
        return self._append(version)

    def delete(self, type_: str, id_: str) -> Version:
        """Note that the resource is gone; earlier versions stay readable."""
        number = self._number(type_, id_)
        return self._append(Version(type_, id_, number, self._now(), "DELETE", self._next()))

    def current(self, type_: str, id_: str) -> Version | None:
        """The newest version, which may be the one that deleted it; None if there never was one."""
        history = self._histories.get((type_, id_))
        return history[-1] if history else None

    def history(self, type_: str, id_: str | None = None) -> list[Version]:
        """The versions of one resource or of a whole type, newest first."""
        versions = [
            version
            for key, history in self._histories.items()
            if key[0] == type_ and id_ in (None, key[1])
            for version in history
        ]
        return sorted(versions, key=lambda version: version.sequence, reverse=True)

    def living(self, type_: str) -> list[Version]:
        """The current versions of a type's resources, without the deleted, oldest first."""
        return [
            history[-1]
            for key, history in self._histories.items()
            if key[0] == type_ and not history[-1].deleted
        ]

    def snapshot(self) -> Mapping[Key, tuple[Version, ...]]:
        """Everything, for `restore`."""
        return dict(self._histories)

    def restore(self, snapshot: Mapping[Key, tuple[Version, ...]]) -> None:
        """Forget all that happened since the snapshot was taken."""
        self._histories = dict(snapshot)

    def _append(self, version: Version) -> Version:
        key = (version.type, version.id)
        self._histories[key] = (*self._histories.get(key, ()), version)
        return version

    def _number(self, type_: str, id_: str) -> int:
        current = self.current(type_, id_)
        return current.number + 1 if current else 1

    def _next(self) -> int:
        self._sequence += 1
        return self._sequence

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock(), UTC)


def instant(moment: datetime) -> str:
    """A FHIR instant in UTC with milliseconds."""
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _stamp(resource: JsonObject, id_: str, number: int, moment: datetime) -> JsonObject:
    stamps = {"versionId": str(number), "lastUpdated": instant(moment)}
    given = {k: v for k, v in resource.get("meta", {}).items() if k not in stamps}
    rest = {k: v for k, v in resource.items() if k not in ("resourceType", "id", "meta")}
    return {"resourceType": resource["resourceType"], "id": id_, "meta": stamps | given} | rest
