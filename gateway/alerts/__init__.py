"""Alert messages to operators, for hospitals without Prometheus."""

from __future__ import annotations
