"""The side-by-side benchmark; it is not part of the installed package."""
