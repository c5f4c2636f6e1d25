"""DHP Gateway: plain FHIR requests in, OAuth 2.0 protected FHIR requests out."""

from __future__ import annotations

__version__ = "1.0.0"
