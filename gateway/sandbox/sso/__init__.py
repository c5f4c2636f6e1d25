"""The sign-in service of the embedded platform."""
