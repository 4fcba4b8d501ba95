"""A benchmark of finders of a learning rate and of a batch size, ours and those of others (`make finder-bench`)."""
