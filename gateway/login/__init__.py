"""The sign-in of users with a browser, their sessions and their tokens."""

from __future__ import annotations
