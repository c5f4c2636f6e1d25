"""HTTP/1.1 as such; knows neither FHIR nor OAuth."""
