"""Generators of documentation from the code; the gateway imports none of them.

Errors and settings are too many for pages written by hand. Each page has a catalogue for every
language, so that translators need no Python.
"""
