"""All that knows OAuth 2.0: the token requests and the life of a token."""
