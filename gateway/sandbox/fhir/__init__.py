"""The FHIR server of the embedded platform."""
