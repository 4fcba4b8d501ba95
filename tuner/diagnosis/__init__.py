"""What a training's curve and the snapshots of its layers say is wrong, in words, with a next thing to try (no torch).

    findings = diagnose(training.curve, statistics=training.statistics)

Causes come before symptoms: inputs and labels, then signals that do not pass the untrained layers, then the learning
rate and the batch, then how well the model fits. The first rule that finds something ends the search, because later
ones would describe its consequences. A sound training has no findings.

The thresholds were set on small trainings that were made to have each fault (tests/tuner/faulty_runs.py).
"""

from fusetune.exports import load_on_use

TYPE_CHECKING = False
if TYPE_CHECKING:
    from fusetune.tuner.diagnosis.finding import FINDINGS, Confidence, Finding
    from fusetune.tuner.diagnosis.layer_statistics import LayerStatistics
    from fusetune.tuner.diagnosis.rules import diagnose
else:
    __getattr__ = load_on_use(__name__)

__all__ = ["FINDINGS", "Confidence", "Finding", "LayerStatistics", "diagnose"]
