"""What happens to a request, from the caller to the platform and back."""
