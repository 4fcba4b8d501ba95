"""Training and tuning on any model, optimizer and batch source (a leaf: imports neither `kernels` nor `bench`).

The package imports nothing by itself, so `tuner.schedules` (pure Python) can be used without torch.
"""
