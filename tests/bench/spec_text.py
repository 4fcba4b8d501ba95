"""The spec that tests start from; small, and using every section."""

SPEC = """\
name: small
data:   {name: digits, validation: 300, augment: {flip: false}}
model:  {name: mlp, width: 32, activation: relu}
train:  {optimizer: momentum, base_lr: 0.05, batch_size: 64, epochs: 3,
         schedule: {name: one-cycle, pct_start: 0.25}}
factors: {batch_size: [32, 64], schedule: [constant, one-cycle], optimizer: [momentum, adam]}
design: grid
seeds: 2
target: {metric: val_accuracy, at_least: 0.90}
limits: {memory: 2GiB, trial_time: 1min}
early_stop: {patience: 4, min_delta: 0.001}
profiles:
  cpu: {train: {epochs: 2}, seeds: 1}
  cuda: {train: {epochs: 9}}
"""
