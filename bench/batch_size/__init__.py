"""`bench batch-size`: the largest batch under a byte limit, what each size is worth, and one recommendation."""
