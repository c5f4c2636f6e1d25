"""DHP Gateway: plain FHIR requests in, OAuth 2.0 protected FHIR requests out."""

__version__ = "1.0.0"
