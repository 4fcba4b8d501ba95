"""These files are kernels as people write them: looking for examples in them would import them."""

collect_ignore_glob = ["*.py"]
