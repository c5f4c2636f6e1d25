"""The doctor's check of the platform's links: whether they begin with the configured base URLs.

It examines `implementation.url` of the CapabilityStatement and the links of one search, for a type
without patients where the platform declares one. The results show nothing but base URLs of the
platform; where it sends none, there is no result.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

import aiohttp
import orjson

from gateway.commands.findings import CheckResult
from gateway.config import Settings
from gateway.fhir.capability import json_objects
from gateway.fhir.links import LinkMap
from gateway.fhir.links.map import parse_base
from gateway.i18n import Message

SendGet = Callable[[str], AbstractAsyncContextManager[aiohttp.ClientResponse]]

_CHECK: Final = Message("platform links")
# Types without patient data, which most platforms let every client search.
_PREFERRED: Final = ("Organization", "Location", "HealthcareService", "ValueSet")
_PAGING: Final = ("self", "next", "previous", "prev", "first", "last")
# The rewriting rules need a base URL of the gateway: one that no link can have.
_GATEWAY: Final = "http://gateway.invalid"


async def examine(settings: Settings, statement: bytes, get: SendGet) -> AsyncIterator[CheckResult]:
    """Yield the check result.

    `get` sends a request to the platform, with a token if there is one.
    """
    if not settings.rewrite.enabled:
        return
    declared = _object(statement)
    base = settings.platform.fhir_base_url
    base_urls = _BaseUrls(LinkMap(base, _GATEWAY, settings.rewrite.aliases))
    if kind := _searched_type(declared):
        base_urls.record_links(await _search(get, f"{base.rstrip('/')}/{kind}?_count=1"), kind)
    # In YAML, the brackets of an IPv6 address need the quotation marks.
    aliases = ", ".join(dict.fromkeys(f'"{alias}"' for alias in base_urls.missing))
    if aliases:
        detail = Message("they begin with {aliases}, and lead past the gateway", aliases=aliases)
        hint = Message(
            "Set rewrite.aliases: [{aliases}], or platform.fhir_base_url to that name",
            aliases=aliases,
        )
        yield CheckResult(_CHECK, "failed", detail, hint)
        return
    base_urls.record_url(_object(declared.get("implementation")).get("url"))
    if base_urls.missing:
        alias = f'"{base_urls.missing[0]}"'
        detail = Message("implementation.url of the platform is {alias}", alias=alias)
        hint = Message("If links begin so, too, set rewrite.aliases: [{alias}]", alias=alias)
        yield CheckResult(_CHECK, "ok", detail, hint)
    elif base_urls.has_known:
        yield CheckResult(_CHECK, "ok", Message("they begin as the settings say"))


class _BaseUrls:
    """Collects the base URLs that the platform uses for itself; `missing` are the unknown ones."""

    def __init__(self, links: LinkMap) -> None:
        self._links = links
        self.missing: list[str] = []
        self.has_known = False

    def record_links(self, page: dict[str, Any], kind: str) -> None:
        """Record the links of a searchset for the type `kind`."""
        for link in json_objects(page.get("link")):
            if link.get("relation") in _PAGING:
                self.record_url(link.get("url"), kind)
        for entry in json_objects(page.get("entry")):
            url = entry.get("fullUrl")
            # A fullUrl that is the canonical URL of its resource is an identity, not a link.
            if url != _object(entry.get("resource")).get("url"):
                self.record_url(url, kind)

    def record_url(self, url: object, kind: str = "") -> None:
        """Record a URL, which is a base URL itself or, with `kind`, a URL of that type."""
        if not isinstance(url, str):
            return
        if self._links.to_gateway(url) is not None:
            self.has_known = True
            return
        base, has_query, _ = url.partition("?")
        if kind:
            before, is_of_kind, _ = base.rpartition(f"/{kind}")
            if not is_of_kind and not has_query:
                return  # It is unknown where the base URL ends and the logical id begins.
            base = before or base
        try:
            self.missing.append(parse_base(base).text)
        except ValueError:
            return


def _searched_type(statement: dict[str, Any]) -> str | None:
    types = [
        resource.get("type")
        for rest in json_objects(statement.get("rest"))
        for resource in json_objects(rest.get("resource"))
        if any(
            interaction.get("code") == "search-type"
            for interaction in json_objects(resource.get("interaction"))
        )
    ]
    searchable = [kind for kind in types if isinstance(kind, str) and kind.isalpha()]
    return next((kind for kind in (*_PREFERRED, *searchable) if kind in searchable), None)


async def _search(get: SendGet, url: str) -> dict[str, Any]:
    """Return the resource of the response, empty where there is none."""
    try:
        async with get(url) as response:
            return _object(await response.read()) if response.status == 200 else {}
    except (aiohttp.ClientError, TimeoutError, OSError):
        return {}


def _object(value: object) -> dict[str, Any]:
    """Return a JSON object, parsed or as bytes; an empty one for anything else."""
    if isinstance(value, bytes):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}
