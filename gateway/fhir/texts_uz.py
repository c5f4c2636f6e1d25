"""Placeholder."""

from typing import Final

from gateway.fhir import texts_en

TEXTS: Final[dict[str, str]] = texts_en.TEXTS
