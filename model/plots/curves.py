"""The curves of a training run as a picture."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure

from model.training.loop import EpochMetrics


def draw_curves(history: Sequence[EpochMetrics]) -> bytes:
    """Loss and accuracy over the epochs, training and validation, as a PNG."""
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
