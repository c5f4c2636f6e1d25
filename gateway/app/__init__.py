"""The running gateway: sockets, signals, and the parts constructed from the settings."""

from __future__ import annotations
