"""Connections to the platform, and the answers that come on them."""
