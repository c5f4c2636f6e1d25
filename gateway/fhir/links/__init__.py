"""Rewrites links: platform URLs to gateway URLs, and gateway URLs to platform URLs."""

from gateway.fhir.links.map import LinkMap
from gateway.fhir.links.rewriter import rewriter_for

__all__ = ["LinkMap", "rewriter_for"]
