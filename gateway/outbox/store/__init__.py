"""The database of the outbox."""
