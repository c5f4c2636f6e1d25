"""DHP Gateway: plain FHIR requests in, OAuth 2.0 protected FHIR requests out."""

__version__ = "0.1.0"
