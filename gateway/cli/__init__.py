"""The implementation of the longer commands; `cli` has their options and exit codes."""

from __future__ import annotations
