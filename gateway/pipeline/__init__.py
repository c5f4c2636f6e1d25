"""The request path: processing of a request from the caller to the platform and back."""

from __future__ import annotations
