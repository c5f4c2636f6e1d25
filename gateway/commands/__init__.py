"""What the longer commands do, apart from their options and exit codes, which stand in `cli`."""
