"""Draws a reliability diagram. Needs the extra ``train``."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from model.evaluation.calibration import BINS, expected_calibration_error
from model.metrics import ReliabilityBin
from model.plots.style import SERIES, encode_figure


def draw_reliability(bins: Sequence[ReliabilityBin], title: str) -> bytes:
    """Returns a PNG of accuracy over confidence, with the number of predictions per bin below."""
    figure = Figure(figsize=(5, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    centres, filled = [(i + 0.5) / BINS for i in range(BINS)], [part for part in bins if part.count]
    above.plot([0, 1], [0, 1], color="grey", linestyle="--", label="perfectly calibrated")
    confidence, accuracy = [part.confidence for part in filled], [part.accuracy for part in filled]
    above.plot(confidence, accuracy, marker="o", color=SERIES, label="predictions")
    above.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"{title}: calibration error {expected_calibration_error(list(bins)):.2%}")
    above.legend()
    below.bar(centres, [max(part.count, 0.5) for part in bins], width=0.9 / BINS, color=SERIES)
    below.set(xlabel="confidence", ylabel="predictions", yscale="log", ylim=(0.5, None))
    return encode_figure(figure)
