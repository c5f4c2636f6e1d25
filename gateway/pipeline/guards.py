"""The search guard and the condition guard: they warn of what the platform ignores, or block it.

The search guard checks the response of a search, warns or blocks. A guard that blocks also requests
strict handling, because the platform may reject then what the guard would; with `warn` the request
stays unchanged. `gateway.fhir.search_parameters` decides which parameters were ignored; this module
supplies the beginning of the response and the platform's CapabilityStatement.

The condition guard warns of conditions that the platform ignores, or rejects such requests. A
platform without support for conditional creates ignores `If-None-Exist` and creates a duplicate.
The platform declares its support in its CapabilityStatement. Before that could be had, nobody knows
whether a condition would be kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conditional_writes import BundleConditions, Condition, condition_of_request
from gateway.fhir.content_negotiation import media_type
from gateway.fhir.interaction import BUNDLES, query_names
from gateway.fhir.search_parameters import (
    SearchSupport,
    filtering_names,
    ignored_parameters,
    self_parameters,
)
from gateway.http.content_coding import decode_prefix, parse_content_encoding
from gateway.pipeline.platform_client import MAX_WAIT, CapabilityCache

if TYPE_CHECKING:
    from gateway.config.outbound_settings import FhirSettings
    from gateway.http.client.upstream_response import UpstreamResponse
    from gateway.http.headers import RequestHeader
    from gateway.pipeline.request import RequestContext

# How much of a response is inspected, by whether the guard blocks. One that blocks holds back that
# much, and more until it has seen the `self` link.
_MAX_INSPECTED_BYTES: Final = {True: 1024 * 1024, False: 64 * 1024}
_MAX_BUFFERED_BYTES: Final = 16 * 1024 * 1024


class SearchGuard:
    """Checks the responses to searches.

    `on_ignored` is called with the number of ignored parameters.
    """

    def __init__(
        self,
        settings: FhirSettings,
        statement: CapabilityCache,
        on_ignored: Callable[[int], None],
    ) -> None:
        self._statement = statement
        # The parameters, by type, that filter nothing whatever the platform declares.
        self._unfiltered: Mapping[str, Collection[str]] = settings.unfiltered
        self._is_blocking = settings.search_guard == "block"
        self._on_ignored = on_ignored

    def strict_handling_lines(self, header: RequestHeader) -> list[bytes]:
        """Return the field lines to add to a search: strict handling where the guard blocks.

        None are added if the caller chose the handling. A guard that only warns does not change the
        request.
        """
        chosen = "handling=" in (header.text(b"prefer") or "").lower()
        return [b"Prefer: handling=strict\r\n"] if self._is_blocking and not chosen else []

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
        # Parameters without an underscore are specific to the resource type.
        if not all(name.startswith("_") for name in names):
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
        await response.prefetch(_MAX_INSPECTED_BYTES[True])
        if self_parameters(self._decoded_body(response), xml=xml) is None:
            await response.prefetch(_MAX_BUFFERED_BYTES)

    def _decoded_body(self, response: UpstreamResponse) -> bytes:
        return decode_prefix(
            response.buffered_body, response.content_coding, _MAX_INSPECTED_BYTES[self._is_blocking]
        )


# Seconds after which a caller may ask again: the statement is fetched anew by then.
_RETRY_AFTER: Final = 10.0


class ConditionGuard:
    """Checks writes before and after they are forwarded; warns, or rejects them."""

    def __init__(self, settings: FhirSettings, statement: CapabilityCache) -> None:
        self._statement = statement
        self._is_blocking = settings.condition_guard == "block"

    async def check_request(self, context: RequestContext) -> None:
        """Record the conditions of a write in its context; those of a Bundle are found in its body.

        A guard that blocks raises `GatewayError` condition-unsupported; where nothing is known yet,
        the context gets a condition-unknown, which forwarding raises, so that the write can be
        queued. For a Bundle that is not completely buffered, reading its body raises either, so
        that the platform receives no complete request.
        """
        interaction, target = context.interaction, context.target
        # A Bundle in a Content-Encoding has no interaction of its own.
        is_sent_to_base = context.exchange.method == "POST" and not target.path.strip("/")
        if interaction.code in BUNDLES or is_sent_to_base:
            await self._check_bundle(context)
        elif interaction.resource_id is None:
            condition = condition_of_request(
                interaction.code,
                context.type_name,
                target.query,
                if_none_exist=b"if-none-exist" in context.header.values,
            )
            if condition is None:
                return
            context.conditions = lambda: (condition,)
            if self._is_blocking:
                await self._statement.wait_for(condition[1], MAX_WAIT[True])
                self._object(context, (condition,))

    def _object(self, context: RequestContext, conditions: Iterable[Condition]) -> None:
        error = self._objection(conditions)
        if error is not None and error.reason is errors.CONDITION_UNSUPPORTED:
            raise error
        context.forwarding_error = error

    async def _check_bundle(self, context: RequestContext) -> None:
        body = context.body
        if body is None:
            return
        bundle_conditions = _bundle_conditions(context.header.values)
        context.conditions = lambda: bundle_conditions.conditions
        if not self._is_blocking:
            body.add_observer(bundle_conditions.feed)
            return
        # The body's observer cannot wait for the statement, so that this is done first.
        await self._statement.wait_for("", MAX_WAIT[True])
        if context.queue_budget is not None and (data := await body.read_all()) is not None:
            # The queue needs the whole body, too.
            bundle_conditions.feed(data)
            self._object(context, bundle_conditions.conditions)
            return

        def feed(data: bytes) -> None:
            bundle_conditions.feed(data)
            error = self._objection(bundle_conditions.conditions)
            if error is not None:
                error.close_connection = True
                raise error

        body.add_observer(feed)

    async def check_queued(
        self,
        interaction: str,
        resource: str,
        target_suffix: str,
        fields: Iterable[tuple[bytes, bytes]],
        body: bytes,
    ) -> GatewayError | None:
        """Return why a queued write, which names no id, must not be sent; None where it may be."""
        if not self._is_blocking:
            return None
        values = {name.lower(): value for name, value in fields}
        if interaction in BUNDLES:
            found = _bundle_conditions(values)
            await asyncio.to_thread(found.feed, body)
            conditions = found.conditions
        else:
            query, has_criteria = target_suffix.partition("?")[2], b"if-none-exist" in values
            condition = condition_of_request(
                interaction, resource, query, if_none_exist=has_criteria
            )
            conditions = () if condition is None else (condition,)
        if conditions:
            await self._statement.wait_for("", MAX_WAIT[True])
        return self._objection(conditions)

    async def response_warning(self, context: RequestContext) -> bytes | None:
        """Return the value of X-Gateway-Warning for a write that succeeded, or None."""
        conditions = () if context.conditions is None else context.conditions()
        if not conditions:
            return None
        await self._statement.wait_for("", MAX_WAIT[False])
        error = self._objection(conditions)
        if error is None:
            return None
        names = error.hint.partition("=")[2]
        return f'{error.reason.code}; names="{names}"'.encode("ascii")

    def _objection(self, conditions: Iterable[Condition]) -> GatewayError | None:
        """Return the error for conditions that the platform does not declare, or may not."""
        names: dict[str, None] = {}
        for code, resource, condition_names in conditions:
            declared = self._statement.cached(resource)
            if declared is None or code not in declared.conditional:
                names.update(dict.fromkeys(condition_names))
        if not names:
            return None
        hint = f"conditions={','.join(names)}"
        if self._statement.is_known:
            return GatewayError(errors.CONDITION_UNSUPPORTED, hint=hint)
        return GatewayError(errors.CONDITION_UNKNOWN, hint=hint, retry_after=_RETRY_AFTER)


def _bundle_conditions(values: Mapping[bytes, bytes]) -> BundleConditions:
    """Return what finds the conditions of a Bundle with these fields, by names in lower case."""
    content_type, coding = (
        values.get(name, b"").decode("latin-1") for name in (b"content-type", b"content-encoding")
    )
    return BundleConditions(content_type, parse_content_encoding(coding) or "")
