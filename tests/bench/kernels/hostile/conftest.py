"""These files are kernels under test: looking for examples in them would import them, and some end the process."""

collect_ignore_glob = ["*/*.py"]
