"""Connections of callers, and the requests that come on them."""
