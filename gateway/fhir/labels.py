"""The closed sets that label a request: in metrics, in audit records and in permissions.

Interactions are the codes of FHIR R5's restful-interaction, and a few of the gateway's own for
what that code system does not name.
"""

from __future__ import annotations

from typing import Final

from gateway.config import fhir_names
from gateway.config.resource_types import RESOURCE_TYPES

INTERACTIONS: Final = frozenset(fhir_names.INTERACTIONS)
RESOURCE_LABELS: Final = RESOURCE_TYPES | {"", "other"}
OPERATION_LABELS: Final = fhir_names.OPERATIONS | {"", "other"}
