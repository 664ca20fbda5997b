"""Confidence against accuracy as a picture."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from model.evaluation.calibration import BINS, expected_calibration_error
from model.metrics import ReliabilityBin


def draw_reliability(bins: Sequence[ReliabilityBin], title: str) -> bytes:
    """A PNG: the accuracy of each bin beside its confidence, and below it how many answers fell into it."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    centres, some = [(i + 0.5) / BINS for i in range(BINS)], [part for part in bins if part.count]
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="as confident as right")
    confidence, accuracy = [part.confidence for part in some], [part.accuracy for part in some]
    above.plot(confidence, accuracy, marker="o", color="#0072b2", label="answers")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"{title}: calibration error {expected_calibration_error(list(bins)):.2%}")
    above.legend()
    below.bar(centres, [max(part.count, 0.5) for part in bins], width=0.9 / BINS, color="#0072b2")
    below.set(xlabel="confidence", ylabel="answers", yscale="log", ylim=(0.5, None))
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
