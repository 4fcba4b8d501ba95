"""A benchmark of tuning rules on recorded landscapes (`make autotune-bench`)."""
