"""The side-by-side benchmark; no part of the package that is installed."""
