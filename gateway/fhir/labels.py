"""The closed sets that label a request: in metrics, in audit records and in permissions.

Interactions are the codes of FHIR R5's restful-interaction, and a few of the gateway's own for
what that code system does not name.
"""

from __future__ import annotations

from typing import Final

from gateway.config import inbound
from gateway.fhir.resource_types import RESOURCE_TYPES

INTERACTIONS: Final = frozenset(inbound.INTERACTIONS)
RESOURCE_LABELS: Final = RESOURCE_TYPES | {"", "other"}
# Operations of FHIR R5, of the platform, and those common in other servers; without the `$`.
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
        "submit-data",
        "subset",
        "subsumes",
        "transform",
        "translate",
        "validate",
        "validate-code",
        "versions",
    }
)
OPERATION_LABELS: Final = OPERATIONS | {"", "other"}
