"""The operators' listener (liveness, readiness, metrics and pages) and alert messages."""
