"""The request path: processing of a request from the caller to the platform and back."""
