"""Connections of callers and the requests that arrive on them."""
