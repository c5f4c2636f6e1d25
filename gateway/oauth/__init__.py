"""OAuth 2.0: token requests, and fetching, refreshing and storing access tokens."""
