"""Connections to the platform and the responses that arrive on them."""

from __future__ import annotations
