"""Generators of documentation from the code; the gateway imports none of them."""
