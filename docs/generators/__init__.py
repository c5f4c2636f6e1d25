"""Makes pages of the documentation out of the code; nothing of the gateway imports it."""
