"""Processes, sockets, signals, and the parts of the gateway constructed from the settings."""

from __future__ import annotations
