"""A benchmark of the gate's decision beside the rules of others, on recorded processes (`make gate-bench`)."""
