"""The search guard on the request path: checks the response of a search, warns or blocks.

A guard that blocks also requests strict handling. `gateway.fhir.search_guard` decides which
parameters were ignored; this module supplies the beginning of the response and the platform's
CapabilityStatement.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conformity import media_type
from gateway.fhir.interaction import query_names
from gateway.fhir.search_guard import (
    SearchSupport,
    filtering_names,
    ignored_parameters,
    self_parameters,
)
from gateway.http.client.response import UpstreamResponse
from gateway.http.content_coding import decode_prefix
from gateway.http.headers import RequestHeader
from gateway.pipeline.statement import MAX_WAIT, CapabilityCache

# How much of a response is inspected, by whether the guard blocks. One that blocks holds back that
# much, and more until it has seen the `self` link.
_PREFIX: Final = {True: 1024 * 1024, False: 64 * 1024}
_MAX_BUFFERED_BYTES: Final = 16 * 1024 * 1024
_STRICT: Final = b"Prefer: handling=strict\r\n"


class SearchGuard:
    """Checks the responses to searches.

    `on_ignored` is called with the number of ignored parameters. `unfiltered` are the parameters,
    by type, that filter nothing whatever the platform declares.
    """

    def __init__(
        self,
        statement: CapabilityCache,
        unfiltered: Mapping[str, Collection[str]],
        *,
        block: bool,
        on_ignored: Callable[[int], None],
    ) -> None:
        self._statement = statement
        self._unfiltered = unfiltered
        self._is_blocking = block
        self._on_ignored = on_ignored

    def strict_handling_lines(self, header: RequestHeader) -> list[bytes]:
        """Return the field lines to add to a search: strict handling where the guard blocks.

        None are added if the caller chose the handling. A guard that only warns does not change the
        request.
        """
        chosen = "handling=" in (header.text(b"prefer") or "").lower()
        return [_STRICT] if self._is_blocking and not chosen else []

    async def check_searchset(
        self, response: UpstreamResponse, type_name: str, query: str
    ) -> bytes | None:
        """Return the value of X-Gateway-Warning, or None.

        `query` is the query and the form of the search. Raises `GatewayError`
        search-parameter-ignored when the guard blocks.
        """
        names = filtering_names(query)
        if not names or response.status != 200:
            return None
        kind = media_type(response.content_type)
        xml = kind.endswith("xml")
        if not xml and not kind.endswith("json"):
            return None
        # The response to the search has arrived: fetching the statement does not delay the
        # platform.
        support = SearchSupport(None, self._unfiltered.get(type_name, ()))
        if _is_any_of_type(names):
            declared = self._statement.cached(type_name)
            if declared is None:
                declared = await self._statement.wait_for(type_name, MAX_WAIT[self._is_blocking])
            support.declared = None if declared is None else declared.parameters
        if self._is_blocking and not response.is_complete:
            await self._buffer_response(response, xml=xml)
        body = self._decoded_body(response)
        unused = ignored_parameters(query, names, body, support, xml=xml)
        if not unused:
            return None
        self._on_ignored(len(unused))
        # Only names with the syntax of parameters are shown: a caller can send any text as a name.
        names_text = ",".join(query_names("&".join(f"{name}=" for name in unused)))
        if self._is_blocking:
            raise GatewayError(
                errors.SEARCH_PARAMETER_IGNORED, hint=f"ignored={names_text}", upstream_status=200
            )
        return f'search-parameter-ignored; names="{names_text}"'.encode("ascii")

    async def _buffer_response(self, response: UpstreamResponse, *, xml: bool) -> None:
        """Buffer as much of the body as is needed: the `self` link may follow the matches."""
        await response.prefetch(_PREFIX[True])
        if self_parameters(self._decoded_body(response), xml=xml) is None:
            await response.prefetch(_MAX_BUFFERED_BYTES)

    def _decoded_body(self, response: UpstreamResponse) -> bytes:
        return decode_prefix(
            response.buffered_body, response.content_coding, _PREFIX[self._is_blocking]
        )


def _is_any_of_type(names: tuple[str, ...]) -> bool:
    """Return whether one of the parameters is specific to a resource type."""
    for name in names:  # noqa: SIM110 - a generator costs more than all the rest
        if not name.startswith("_"):
            return True
    return False
