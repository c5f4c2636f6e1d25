"""The operators' listener (liveness, readiness, metrics and pages) and alert messages."""

from __future__ import annotations
