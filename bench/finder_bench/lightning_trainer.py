"""Lightning's Trainer on the CPU, which prints and keeps nothing."""

from __future__ import annotations

from typing import Any


def quiet_trainer(directory: str, **lengths: int) -> Any:
    """Return a Trainer.

    Args:
        directory: for what it writes meanwhile.
        lengths: `max_epochs` or `max_steps`.
    """
    from lightning.pytorch import Trainer

    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=directory,
        **lengths,
    )
