"""Checks requests against the caller's permissions and the status URLs that it was given.

A caller that may start an asynchronous request (for example an export) may also poll and cancel it
at the Content-Location of the platform's 202. Servers choose that path freely, so that no list of
permissions can contain it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from cachetools import LRUCache

from gateway.fhir.interaction import Interaction
from gateway.http.client.response import UpstreamResponse
from gateway.http.headers import RequestHeader
from gateway.http.target import RequestTarget
from gateway.pipeline.callers import Caller
from gateway.pipeline.request_context import RequestContext

# Status URLs remembered for each caller; polling one makes it the most recent.
_MAX_STATUS_URLS: Final = 256
_STATUS_URL_METHODS: Final = frozenset(("GET", "HEAD", "DELETE"))
# Interactions that FHIR defines at a path need their own permission, whatever URL a platform gives.
_STATUS_URL_INTERACTIONS: Final = frozenset(("async-status", "async-cancel", "operation", "other"))


class PermissionCheck:
    """Checks requests by their caller's permissions; remembers status URLs by the caller's name."""

    def __init__(self) -> None:
        self._status_urls: defaultdict[str, LRUCache[str, bool]] = defaultdict(
            lambda: LRUCache(_MAX_STATUS_URLS)
        )

    def require(
        self,
        caller: Caller,
        method: str,
        interaction: Interaction,
        target: RequestTarget,
        header: RequestHeader,
    ) -> None:
        """Raise `GatewayError` caller-forbidden for a request that its caller may not send.

        A Bundle's interaction is known only from its body, so that it is not checked here.
        """
        permissions = caller.permissions
        if not permissions.is_restricted:
            return
        query = target.query
        if self._is_known_status_url(caller, method, interaction, target):
            query = ""
        elif interaction.code != "transaction":
            permissions.require(interaction, target.path.rstrip("?"))
        permissions.require_fields(interaction, query, header)

    def remember_status_url(self, context: RequestContext, response: UpstreamResponse) -> None:
        """Remember the status URL that the platform gives to a caller with restrictions."""
        caller, links = context.caller, context.caller_context.link_translator.links
        if response.status != 202 or links is None or not caller.permissions.is_restricted:
            return
        location = response.field(b"content-location")
        suffix = None if location is None else links.suffix(location)
        if suffix is not None:
            self._status_urls[caller.name][suffix] = True

    def _is_known_status_url(
        self, caller: Caller, method: str, interaction: Interaction, target: RequestTarget
    ) -> bool:
        """Return whether this is a status URL that the caller was given."""
        if interaction.code not in _STATUS_URL_INTERACTIONS or method not in _STATUS_URL_METHODS:
            return False
        return self._status_urls[caller.name].get(target.suffix, False)
