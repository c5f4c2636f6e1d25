"""HTTP/1.1, independent of FHIR and OAuth."""

from __future__ import annotations
