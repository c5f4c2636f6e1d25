"""All that knows FHIR: what a request means, how an outcome looks, where platform URLs stand."""
