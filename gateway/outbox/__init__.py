"""Durable store and forward: a write that cannot be delivered now is stored and delivered later."""

from __future__ import annotations
