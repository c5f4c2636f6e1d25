"""The names of FHIR R5 that settings may have: interactions, resource types, operations.

A name that can never match is rejected, with the name that was probably meant.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from typing import Annotated, Final

from pydantic import AfterValidator, Field, Strict

from gateway.config.problems import closest_key
from gateway.config.resource_types import RESOURCE_TYPES
from gateway.config.values import InvalidValueError
from gateway.i18n import Message

# The interactions of FHIR R5 (restful-interaction) and the gateway's names for other requests.
INTERACTIONS: Final = (
    "read",
    "vread",
    "update",
    "patch",
    "delete",
    "history-instance",
    "history-type",
    "history-system",
    "create",
    "search-type",
    "search-system",
    "capabilities",
    "transaction",
    "batch",
    "operation",
    "async-status",
    "async-cancel",
    "smart-configuration",
    "other",
)
# Operations of FHIR R5, of the platform, and common ones of other servers; without the `$`.
OPERATIONS: Final = frozenset(
    {
        "add",
        "apply",
        "care-gaps",
        "closure",
        "collect-data",
        "conforms",
        "convert",
        "current-canonical",
        "data-requirements",
        "diff",
        "docref",
        "document",
        "evaluate",
        "evaluate-measure",
        "events",
        "everything",
        "expand",
        "export",
        "extract",
        "filter",
        "find",
        "find-matches",
        "generate",
        "get-ws-binding-token",
        "graph",
        "graphql",
        "implements",
        "import",
        "lastn",
        "lookup",
        "match",
        "member-match",
        "merge",
        "meta",
        "meta-add",
        "meta-delete",
        "organizations",
        "package",
        "populate",
        "populatehtml",
        "populatelink",
        "practitioners",
        "preferred-id",
        "process-message",
        "purge",
        "questionnaire",
        "remove",
        "search-parameters",
        "snapshot",
        "specializations",
        "stats",
        "status",
        "submit",
        "submit-data",
        "subset",
        "subsumes",
        "transform",
        "translate",
        "translate-id",
        "validate",
        "validate-code",
        "versions",
    }
)

_OPERATION: Final = r"\*|\$?[A-Za-z][A-Za-z0-9._\-]{0,63}"
# Characters. In shorter names, one different letter may well make another word.
_MIN_SLIP_LENGTH: Final = 6


def similar_operation(name: str) -> str | None:
    """Return the known operation, with `$`, that an unknown name is similar to, else None.

    A platform may define further operations, so that an unknown name alone is no mistake.
    """
    code = name.removeprefix("$")
    near = None if code in OPERATIONS or name == "*" else closest_key(code, OPERATIONS)
    return None if near is None else f"${near}"


def _interaction(value: str) -> str:
    if value != "*" and value not in INTERACTIONS:
        known = Message("use * or some of {interactions}", interactions=", ".join(INTERACTIONS))
        raise InvalidValueError(
            Message("is no FHIR interaction"), _did_you_mean(value, INTERACTIONS, known)
        )
    return value


def _resource_type(value: str) -> str:
    if value not in RESOURCE_TYPES:
        known = Message("write it as FHIR does, e.g. Observation")
        raise InvalidValueError(_NO_TYPE, _did_you_mean(value, RESOURCE_TYPES, known))
    return value


def _any_resource_type(value: str) -> str:
    if value != "*" and value not in RESOURCE_TYPES:
        known = Message("use * or types such as Patient, Observation")
        raise InvalidValueError(_NO_TYPE, _did_you_mean(value, RESOURCE_TYPES, known))
    return value


_NO_TYPE: Final = Message("is no resource type of FHIR R5")


def _operation(value: str) -> str:
    similar = similar_operation(value)
    if not re.fullmatch(_OPERATION, value) or (
        similar is not None and _is_slip(value.removeprefix("$"), similar.removeprefix("$"))
    ):
        known = Message("use * or names such as $expand")
        hint = known if similar is None else Message("did you mean {near}?", near=similar)
        raise InvalidValueError(Message("is no name of a FHIR operation"), hint)
    return value


def _is_slip(wrong: str, right: str) -> bool:
    """Return whether two names differ by case, hyphens, order of letters, or one inner letter."""
    one, other = (re.sub(r"[^a-z0-9]", "", name.lower()) for name in (wrong, right))
    surplus, missing = Counter(one) - Counter(other), Counter(other) - Counter(one)
    if not surplus and not missing:
        return True
    is_close = surplus.total() <= 1 and missing.total() <= 1 and len(right) >= _MIN_SLIP_LENGTH
    return is_close and (one[0], one[-1]) == (other[0], other[-1])


def _did_you_mean(wrong: str, known: Collection[str], otherwise: Message) -> Message:
    near = closest_key(wrong, known)
    return otherwise if near is None else Message("did you mean {near}?", near=near)


Interaction = Annotated[
    str,
    Strict(),
    AfterValidator(_interaction),
    Field(json_schema_extra={"enum": ["*", *INTERACTIONS]}),
]
ResourceType = Annotated[
    str,
    Strict(),
    AfterValidator(_resource_type),
    Field(json_schema_extra={"enum": sorted(RESOURCE_TYPES)}),
]
AnyResourceType = Annotated[
    str,
    Strict(),
    AfterValidator(_any_resource_type),
    Field(json_schema_extra={"enum": ["*", *sorted(RESOURCE_TYPES)]}),
]
OperationName = Annotated[
    str,
    Strict(),
    AfterValidator(_operation),
    Field(json_schema_extra={"pattern": rf"^({_OPERATION})$"}),
]
