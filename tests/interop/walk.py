"""Calls a platform with one of the Python clients, as `walk.mjs` does with the others.

It runs in the client's environment; nothing of the gateway is imported.
"""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from typing import Any
from urllib.parse import urljoin
from urllib.request import Request, urlopen

Resource = dict[str, Any]
JSON = "application/fhir+json"


class _Driver(ABC):
    """Interface of the clients."""

    @abstractmethod
    def create(self, resource: Resource) -> str:
        """Create a resource and return the Location."""

    @abstractmethod
    def pages(self, family: str) -> list[list[str]]:
        """Return the ids on each page of a search."""

    @abstractmethod
    def follow(self, location: str) -> Resource:
        """Return the resource at a Location."""

    @abstractmethod
    def update(self, resource: Resource, version: str) -> None:
        """Replace a resource of that version."""


class _Fhirpy(_Driver):
    """fhirpy hides header fields: `create` gets the Location without it, `follow` uses it."""

    def __init__(self, base_url: str) -> None:
        from fhirpy import SyncFHIRClient

        self._new = SyncFHIRClient
        self._url = base_url
        self._client = SyncFHIRClient(base_url)

    def create(self, resource: Resource) -> str:
        request = Request(  # noqa: S310 - the test's own server
            f"{self._url}/Patient",
            json.dumps(resource).encode(),
            {"Content-Type": JSON, "Accept": JSON},
        )
        with urlopen(request) as answer:  # noqa: S310
            return str(answer.headers["Location"])

    def pages(self, family: str) -> list[list[str]]:
        search = self._client.resources("Patient").search(family=family).limit(1)
        return [[one["id"]] for one in search.fetch_all()]

    def follow(self, location: str) -> Resource:
        return dict(self._client.execute(location, method="get"))

    def update(self, resource: Resource, version: str) -> None:
        client = self._new(self._url, extra_headers={"If-Match": version})
        client.execute(f"Patient/{resource['id']}", method="put", data=resource)


class _Smart(_Driver):
    """fhirclient, whose models are R4; a Patient is nearly the same in R5."""

    def __init__(self, base_url: str) -> None:
        from fhirclient.client import FHIRClient
        from fhirclient.models.patient import Patient

        self._patient = Patient
        self._server = FHIRClient(settings={"app_id": "interop", "api_base": base_url}).server

    def create(self, resource: Resource) -> str:
        answer = self._server.post_json("Patient", self._patient(resource).as_json())
        return str(answer.headers["Location"])

    def pages(self, family: str) -> list[list[str]]:
        search = self._patient.where({"family": family, "_count": "1"})
        pages = search.perform_iter(self._server)
        return [[entry.resource.id for entry in page.entry or []] for page in pages]

    def follow(self, location: str) -> Resource:
        return dict(self._patient.read_from(location, self._server).as_json())

    def update(self, resource: Resource, version: str) -> None:
        self._server.session.headers["If-Match"] = version
        patient = self._patient(resource)
        patient.origin_server = self._server
        patient.update()


class _Pyrate(_Driver):
    """fhir-pyrate can only search; the other requests use the session that it exposes."""

    def __init__(self, base_url: str) -> None:
        from fhir_pyrate import Pirate

        self._url = base_url
        self._pirate = Pirate(auth=None, base_url=base_url, num_processes=1)

    def create(self, resource: Resource) -> str:
        answer = self._pirate.session.post(f"{self._url}/Patient", json=resource)
        answer.raise_for_status()
        return str(answer.headers["Location"])

    def pages(self, family: str) -> list[list[str]]:
        asked = {"family": family, "_count": 1}
        pages = self._pirate.steal_bundles("Patient", request_params=asked)
        return [[entry.resource.id for entry in page.entry or []] for page in pages]

    def follow(self, location: str) -> Resource:
        answer = self._pirate.session.get(location)
        answer.raise_for_status()
        return dict(answer.json())

    def update(self, resource: Resource, version: str) -> None:
        url = f"{self._url}/Patient/{resource['id']}"
        answer = self._pirate.session.put(url, json=resource, headers={"If-Match": version})
        answer.raise_for_status()


DRIVERS = {"fhirpy": _Fhirpy, "fhirclient": _Smart, "fhir-pyrate": _Pyrate}


def _walk(order: dict[str, Any]) -> dict[str, Any]:
    base_url, family = order["baseUrl"], order["family"]
    driver, step = DRIVERS[order["client"]](base_url), "create"
    patient = {"resourceType": "Patient", "name": [{"family": family}]}
    try:
        # A Location may be relative to the request's URL (RFC 9110 section 10.2.2).
        asked = f"{base_url}/Patient"
        created = [urljoin(asked, driver.create(patient)) for _ in range(order["count"])]
        step = "search"
        pages = driver.pages(family)
        step = "follow"
        followed = driver.follow(created[-1])
        step = "update"
        version = order["etag"] or f'W/"{followed["meta"]["versionId"]}"'
        driver.update({**followed, "gender": "female"}, version)
        updated = driver.follow(f"{asked}/{followed['id']}")
    except Exception as error:
        return {"error": {"step": step, "message": f"{type(error).__name__}: {error}"}}
    return {"created": created, "pages": pages, "followed": followed["id"], "updated": updated}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_walk(json.loads(sys.argv[1]))))
