"""Fused kernels: maths on tensors, nothing of training, files or YAML (a leaf: imports neither `tuner` nor `bench`)."""
