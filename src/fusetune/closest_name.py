"""The known name that a person meant by an unknown one, for hints only: no alias is accepted in place of a name.

Each row of the table is our name and what PyTorch, Keras, Lightning, Hugging Face, timm and fastai call the same.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

_OTHERS: dict[str, str] = {
    # keys of `train`
    "base_lr": "lr learning_rate max_lr initial_lr peak_lr eta lr0",
    "batch_size": "bs batch batches mini_batch_size minibatch_size per_device_train_batch_size train_batch_size",
    "epochs": "n_epochs num_epochs max_epochs num_train_epochs nb_epoch n_epoch epoch_count total_epochs",
    "optimizer": "opt optim optimiser solver algorithm opt_name",
    "schedule": "scheduler sched lr_scheduler lr_schedule lr_scheduler_type lr_policy annealing",
    "accumulation_steps": "gradient_accumulation_steps accumulate_grad_batches grad_accum grad_accum_steps accumulate",
    "label_smoothing": "smoothing smooth label_smoothing_factor",
    "grad_clip": "clip_grad clip_grad_norm gradient_clip_val max_grad_norm max_norm clipnorm gradient_clip clip_norm "
    "clip",
    "precision": "amp mixed_precision autocast dtype fp16 bf16 half",
    "compile": "torch_compile jit jit_compile",
    "devices": "gpus n_gpus num_gpus num_devices nproc nproc_per_node num_processes world_size ranks",
    "parallel": "strategy distribution_strategy distributed",
    "sync_batchnorm": "sync_bn syncbn sync_batch_norm",
    "weight_decay": "wd l2 l2_reg decay l2_regularization weight_decay_rate",
    "betas": "beta beta1 beta_1 beta2 beta_2 adam_beta1 adam_beta2 b1 b2",
    "eps": "epsilon adam_epsilon",
    "alpha": "rho smoothing_constant",
    "momentum": "mom sgdm sgd_momentum",
    # keys of `model` and `data`
    "width": "hidden hidden_size hidden_dim hidden_units units channels n_hidden base_channels features d_model",
    "depth": "layers n_layers num_layers num_hidden_layers blocks num_blocks n_blocks hidden_layers",
    "activation": "act act_layer activation_function nonlinearity non_linearity hidden_act activation_fn",
    "norm": "normalization normalisation norm_layer normalizer",
    "dropout": "drop drop_rate dropout_rate dropout_p p_drop",
    "validation": "val valid val_split validation_split val_size validation_size valid_pct",
    "limit": "max_samples n_samples num_samples subset train_size max_train_samples limit_train_batches",
    "augment": "augmentation augmentations transforms transform aug",
    "flip": "hflip horizontal_flip random_horizontal_flip",
    "translate": "shift crop random_crop padding",
    "cutout": "erase random_erasing",
    "seed": "random_state random_seed",
    "path": "file filename root dir data_dir data_path",
    "factory": "function builder build fn class cls callable",
    "name": "type kind",
    # parameters of schedules
    "every_epochs": "step_size step_epochs decay_epochs",
    "milestones_epochs": "milestones decay_milestones",
    "first_epochs": "t_0 t0 t_initial",
    "mult": "t_mult tmult cycle_mul",
    "min_factor": "eta_min min_lr lr_min min_lr_ratio",
    "end_factor": "final_factor",
    "warmup_epochs": "warmup warmup_steps num_warmup_steps warmup_ratio warmup_t",
    "warmup_factor": "warmup_lr_init warmup_init_lr warmup_start_factor",
    "up_epochs": "step_size_up",
    "down_epochs": "step_size_down",
    "gamma": "decay_rate lr_gamma",
    "factor": "gamma",
    # the top level
    "seeds": "seed random_state random_seed n_seeds num_seeds repeats replicates trials n_runs",
    "data": "dataset datasets data_set",
    "model": "net network arch architecture backbone",
    "train": "training trainer fit hparams hyperparameters",
    "factors": "sweep grid search_space param_grid params parameters space vary",
    "configurations": "configs configuration runs experiments",
    "design": "search sampler strategy method",
    "target": "goal objective metric threshold",
    "limits": "budget resources",
    "early_stop": "early_stopping earlystopping early_stopper",
    "device": "accelerator gpu cuda gpus devices",
    "memory": "max_memory memory_limit ram",
    "trial_time": "timeout max_time time_limit time_budget",
    "budget_epochs": "budget n_trials max_epochs",
    "patience": "early_stopping_patience wait",
    "min_delta": "delta early_stopping_threshold",
    "at_least": "min minimum value threshold",
    "at_most": "max maximum",
    # names that keys take
    "nesterov": "nag",
    "one-cycle": "onecycle onecyclelr one_cycle 1cycle super_convergence",
    "cosine": "cosineannealinglr cosine_annealing cosineannealing cosinedecay cosine_decay",
    "cosine-restarts": "cosineannealingwarmrestarts sgdr warm_restarts",
    "step": "steplr step_lr",
    "multistep": "multisteplr multi_step",
    "exponential": "exponentiallr exponential_decay",
    "polynomial": "polynomiallr polynomial_decay poly",
    "linear": "linearlr linear_decay logistic softmax",
    "plateau": "reducelronplateau reduce_on_plateau reduce_lr_on_plateau",
    "triangular": "cycliclr cyclic clr",
    "inverse-sqrt": "inversesqrt inv_sqrt inverse_square_root noam",
    "warmup-stable-decay": "wsd trapezoidal",
    "constant": "constantlr none fixed",
    "silu": "swish",
    "identity": "none linear",
    "batch": "batchnorm batch_norm batchnorm2d bn",
    "group": "groupnorm group_norm gn",
    "layer": "layernorm layer_norm ln",
    "mlp": "dense fully_connected fc feedforward multilayer_perceptron",
    "cnn": "convnet conv convolutional lenet simple_cnn",
    "resnet9": "resnet resnet18 resnet-18 resnet_9",
    "fp32": "32 float32 float full single",
    "fp16": "16 float16 half 16-mixed",
    "bf16": "bfloat16 bf16-mixed",
    "val_accuracy": "accuracy acc val_acc valid_accuracy validation_accuracy top1",
    "val_loss": "loss valid_loss validation_loss eval_loss",
    "test_accuracy": "test_acc",
    "train_accuracy": "train_acc",
    "cuda": "gpu",
    "cifar10": "cifar-10 cifar",
    "mnist-like": "mnist fashion_mnist fashionmnist",
    "npz": "numpy npy arrays",
    "grid": "full factorial gridsearch grid_search",
    "one-at-a-time": "oat ofat ablation",
}
_OURS: dict[str, list[str]] = {}
for _ours, _theirs in _OTHERS.items():
    for _name in _theirs.split():
        _OURS.setdefault(_name, []).append(_ours)


def meant(name: object, known: Iterable[str]) -> str | None:
    """Return the known name for what another library calls `name`, or None.

    Example:
        >>> meant("learning_rate", ["base_lr", "batch_size"]), meant("OneCycleLR", ["one-cycle"])
        ('base_lr', 'one-cycle')
    """
    # LearningRate, learning-rate and learning_rate are one.
    text = str(name).strip()
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text).lower().replace("-", "_").replace(" ", "_")
    names = set(known)
    for spelling in (text.lower(), snake, snake.replace("_", "")):
        for ours in _OURS.get(spelling, ()):
            if ours in names:
                return ours
    return None


def closest(name: object, known: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """Return the known name that other libraries call `name`, else the one most like it, or None.

    Upper and lower case are the same.

    Args:
        name: the unknown name.
        known: the names to choose from.
        cutoff: the least likeness that counts, from 0 to 1, as in `difflib.get_close_matches`.

    Example:
        >>> closest("lr", ["base_lr", "betas"]), closest("bettas", ["base_lr", "betas"]), closest("x", ["betas"])
        ('base_lr', 'betas', None)
    """
    names = list(known)
    if (alias := meant(name, names)) is not None:
        return alias
    by_lower = {each.lower(): each for each in reversed(names)}
    matches = difflib.get_close_matches(str(name).lower(), by_lower, n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None
