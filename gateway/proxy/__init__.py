"""The request path: from a caller's connection to the platform's and back."""
