"""The sign-in of users with a browser, their sessions and their tokens."""
