"""The audit trail: one record per exchange, in a file, a pipe, syslog or a FHIR repository."""

from __future__ import annotations
