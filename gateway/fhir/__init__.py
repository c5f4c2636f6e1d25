"""The FHIR code: the meaning of requests, OperationOutcomes, and the URLs in bodies and headers."""

from __future__ import annotations
