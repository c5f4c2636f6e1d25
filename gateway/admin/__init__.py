"""The operators' listener (liveness, readiness, metrics and pages)."""

from __future__ import annotations
