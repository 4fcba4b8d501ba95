"""Training and tuning on any model, optimizer and batch source (a leaf: imports neither `kernels` nor `bench`).

The rooms are used through their own faces, such as `tuner.training`. `tuner.schedules` does without
torch.
"""

if __name__ == "tuner":
    raise ImportError("'tuner' is named 'fusetune.tuner': write `from fusetune.tuner.training import train`.")

__all__: list[str] = []
