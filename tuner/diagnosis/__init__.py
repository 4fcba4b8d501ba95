"""What a training's curve and the snapshots of its layers say is wrong, in words, with a next thing to try (no torch).

    findings = diagnose(training.curve, statistics=training.statistics)

Causes come before symptoms: inputs and labels, then signals that do not pass the untrained layers, then the learning
rate and the batch, then how well the model fits. The first that finds something speaks, for what follows would only
describe its consequences. A sound training has no findings.

The thresholds were set on small trainings that were made to have each fault (tests/tuner/faulty_runs.py).
"""

from tuner.diagnosis.finding import FINDINGS, Confidence, Finding
from tuner.diagnosis.rules import diagnose

__all__ = ["FINDINGS", "Confidence", "Finding", "diagnose"]
