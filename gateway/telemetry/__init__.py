"""What operators see of the gateway: metrics, logs and traces."""

from __future__ import annotations
