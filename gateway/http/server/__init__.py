"""Connections of callers and the requests that arrive on them."""

from __future__ import annotations
