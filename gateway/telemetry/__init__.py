"""What operators see: audit records, metrics, logs."""
