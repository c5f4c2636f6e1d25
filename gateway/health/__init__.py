"""The state of the gateway and of the platform."""
