"""The audit: a record for every exchange, in a file, a pipe, syslog or a FHIR repository."""
