"""The page `/outbox`: what waits, failed and is unclear, and what people decide about it."""
