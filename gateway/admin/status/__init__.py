"""The page `/status`: its facts, and how they are shown."""
