"""HTTP/1.1, independent of FHIR and OAuth."""
