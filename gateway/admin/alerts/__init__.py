"""Alert messages to operators, for hospitals without Prometheus."""
