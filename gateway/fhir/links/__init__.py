"""Rewriting links: the platform's URLs become the gateway's, and the other way round."""

from gateway.fhir.links.map import LinkMap
from gateway.fhir.links.rewriter import rewriter_for

__all__ = ["LinkMap", "rewriter_for"]
