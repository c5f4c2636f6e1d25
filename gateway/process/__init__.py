"""What makes it run: processes, sockets, signals, and ready parts out of settings."""
