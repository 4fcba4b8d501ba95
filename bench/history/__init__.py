"""Recorded runs over commits: an append-only log, change points, and where they come from."""
