"""The closed sets that label a request: in metrics, in audit records and in permissions.

Interactions are the codes of FHIR R5's code system restful-interaction, and a few codes of the
gateway for interactions that it does not have.
"""

from __future__ import annotations

from typing import Final

from gateway.config import fhir_names
from gateway.config.resource_types import RESOURCE_TYPES

INTERACTIONS: Final = frozenset(fhir_names.INTERACTIONS)
RESOURCE_LABELS: Final = RESOURCE_TYPES | {"", "other"}
OPERATION_LABELS: Final = fhir_names.OPERATIONS | {"", "other"}
