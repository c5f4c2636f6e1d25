"""OAuth 2.0: token requests, and fetching, refreshing and storing access tokens."""

from __future__ import annotations
