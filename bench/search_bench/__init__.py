"""A benchmark of searchers on recorded tables of learning curves (`make search-bench`)."""
