"""What is trained: models, optimizers and data by the names of `bench.catalog`, or from a person's own factory."""
