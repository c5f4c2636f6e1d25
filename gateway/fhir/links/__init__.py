"""Rewrites links: platform URLs to gateway URLs, and gateway URLs to platform URLs."""

from __future__ import annotations
