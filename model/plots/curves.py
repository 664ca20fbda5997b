"""Draws the curves of a training run. Needs the extra ``train``."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from model.plots.style import encode_figure
from model.training.loop import EpochMetrics


def draw_curves(history: Sequence[EpochMetrics]) -> bytes:
    """Returns a PNG of loss and accuracy per epoch, for training and validation."""
    figure = Figure(figsize=(9, 3.5), layout="constrained")
    epochs = [metrics.epoch for metrics in history]
    for axes, quantity in zip(figure.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for part in ("train", "validation"):
            values = [getattr(metrics, f"{part}_{quantity}") for metrics in history]
            axes.plot(epochs, values, marker=".", label=part)
        axes.set(xlabel="epoch", ylabel=quantity)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend()
    return encode_figure(figure)
