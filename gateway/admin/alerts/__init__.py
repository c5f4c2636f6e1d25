"""Messages to people about what is wrong, for hospitals without Prometheus."""
