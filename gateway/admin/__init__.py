"""The operators' listener: liveness, readiness, metrics."""
