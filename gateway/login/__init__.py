"""All about people who sign in with a browser."""
