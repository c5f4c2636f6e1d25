"""The settings: YAML and environment variables, checked completely before anything opens.

`load_settings` of `loader` returns frozen `Settings` or raises `SettingsError` with every problem
at once. No other package of the gateway reads the environment.
"""

from __future__ import annotations
