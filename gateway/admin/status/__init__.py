"""The page `/status`: its facts and their rendering."""
