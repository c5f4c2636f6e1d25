"""The condition guard: warns of conditions that the platform ignores, or rejects such requests.

A platform without support for conditional creates ignores `If-None-Exist` and creates a duplicate.
The platform declares its support in its CapabilityStatement; a condition that is not known to be
declared counts as undeclared.
"""

from __future__ import annotations

from collections.abc import Iterable

from gateway import errors
from gateway.errors import GatewayError
from gateway.fhir.conditions import BundleConditions, Condition, condition_of_request
from gateway.fhir.interaction import BUNDLES
from gateway.pipeline.request_context import RequestContext
from gateway.pipeline.statement import MAX_WAIT, CapabilityCache


class ConditionGuard:
    """Checks writes before and after they are forwarded. `block`: reject instead of warn."""

    def __init__(self, statement: CapabilityCache, *, block: bool) -> None:
        self._statement = statement
        self._is_blocking = block

    async def check_request(self, context: RequestContext) -> None:
        """Record the conditions of a write in its context; those of a Bundle are found in its body.

        Raises `GatewayError` condition-unsupported when the guard blocks. For a Bundle that is not
        completely buffered, reading its body raises it, so that the platform receives no complete
        request.
        """
        interaction, target = context.interaction, context.target
        if interaction.code in BUNDLES:
            await self._check_bundle(context)
        elif interaction.resource_id is None:
            condition = condition_of_request(
                interaction.code,
                context.type_name,
                target.query,
                if_none_exist=b"if-none-exist" in context.header.values,
            )
            if condition is not None:
                context.conditions = lambda: (condition,)
                if self._is_blocking:
                    await self._reject(condition)

    async def _check_bundle(self, context: RequestContext) -> None:
        body = context.body
        if body is None:
            return
        bundle_conditions = BundleConditions(context.header.text(b"content-type") or "")
        context.conditions = lambda: bundle_conditions.conditions
        if not self._is_blocking:
            body.add_observer(bundle_conditions.feed)
            return
        # The body's observer cannot wait for the statement, so that this is done first.
        await self._statement.wait_for("", MAX_WAIT[True])

        def feed(data: bytes) -> None:
            bundle_conditions.feed(data)
            self._reject_undeclared(bundle_conditions.conditions, close=True)

        body.add_observer(feed)

    async def response_warning(self, context: RequestContext) -> bytes | None:
        """Return the value of X-Gateway-Warning for a write that succeeded, or None."""
        conditions = () if context.conditions is None else context.conditions()
        if not conditions:
            return None
        await self._statement.wait_for("", MAX_WAIT[False])
        undeclared = self._undeclared_conditions(conditions)
        return (
            f'condition-unsupported; names="{undeclared}"'.encode("ascii") if undeclared else None
        )

    async def _reject(self, condition: Condition) -> None:
        await self._statement.wait_for(condition[1], MAX_WAIT[True])
        self._reject_undeclared((condition,))

    def _reject_undeclared(self, conditions: Iterable[Condition], *, close: bool = False) -> None:
        undeclared = self._undeclared_conditions(conditions)
        if undeclared:
            raise GatewayError(
                errors.CONDITION_UNSUPPORTED,
                hint=f"conditions={undeclared}",
                close_connection=close,
            )

    def _undeclared_conditions(self, conditions: Iterable[Condition]) -> str:
        """Return the names of conditions that the platform does not declare, joined by commas."""
        names: dict[str, None] = {}
        for code, resource, condition_names in conditions:
            declared = self._statement.cached(resource)
            if declared is None or code not in declared.conditional:
                names.update(dict.fromkeys(condition_names))
        return ",".join(names)
