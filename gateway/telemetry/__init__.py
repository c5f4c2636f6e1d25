"""What operators see of the gateway: metrics, logs and traces."""
