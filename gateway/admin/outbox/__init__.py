"""The page `/outbox`: entries that wait, failed or are unclear, and operators' decisions."""
