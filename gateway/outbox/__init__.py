"""Durable store-and-forward: writes that cannot be delivered now are kept, and delivered later."""
