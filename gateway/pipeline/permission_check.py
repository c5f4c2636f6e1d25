"""Whether a caller may send what it sends: its permissions, and the status URLs it was given.

A caller that may start an asynchronous request (an export, say) may follow the Content-Location of
the platform's 202 as well: poll and cancel it. Servers choose that path freely, so that no list of
permissions can name it.
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

# Of one caller; one that is polled is not the oldest.
_MOST: Final = 256
_FOLLOWING: Final = frozenset(("GET", "HEAD", "DELETE"))
# What FHIR itself has under a path needs its own permission, whatever a platform names.
_STATUS: Final = frozenset(("async-status", "async-cancel", "operation", "other"))


class PermissionCheck:
    """Judges requests by their caller's permissions; remembers status URLs by caller's name."""

    def __init__(self) -> None:
        self._given: defaultdict[str, LRUCache[str, bool]] = defaultdict(lambda: LRUCache(_MOST))

    def require(
        self,
        caller: Caller,
        method: str,
        interaction: Interaction,
        target: RequestTarget,
        header: RequestHeader,
    ) -> None:
        """Raises `GatewayError` caller-forbidden. Of a Bundle only the body tells what it is."""
        permissions = caller.permissions
        if not permissions.is_restricted:
            return
        query = target.query
        if self._follows(caller, method, interaction, target):
            query = ""
        elif interaction.code != "transaction":
            permissions.require(interaction, target.path.rstrip("?"))
        permissions.require_fields(interaction, query, header)

    def note(self, context: RequestContext, response: UpstreamResponse) -> None:
        """Remember the status URL that the platform gives to a caller with limits."""
        caller, links = context.caller, context.caller_context.link_translator.links
        if response.status != 202 or links is None or not caller.permissions.is_restricted:
            return
        location = response.field(b"content-location")
        suffix = None if location is None else links.suffix(location)
        if suffix is not None:
            self._given[caller.name][suffix] = True

    def _follows(
        self, caller: Caller, method: str, interaction: Interaction, target: RequestTarget
    ) -> bool:
        """Whether this is a status URL that the caller was given."""
        if interaction.code not in _STATUS or method not in _FOLLOWING:
            return False
        return self._given[caller.name].get(target.suffix, False)
