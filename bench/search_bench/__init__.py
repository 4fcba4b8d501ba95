"""Recorded tables of learning curves, and the searchers that are replayed on them (`make search-bench`)."""
