"""The figures of a network on labelled images, as they are computed, kept in a card and sent."""

from pydantic import BaseModel, ConfigDict


class ReliabilityBin(BaseModel):
    """The answers whose confidence lies in one of 15 equal parts of 0..1; means are 0 where there is none."""

    model_config = ConfigDict(frozen=True)

    count: int
    confidence: float
    """Their mean confidence, 0..1."""
    accuracy: float
    """The share of them that is right, 0..1."""


class ClassReport(BaseModel):
    """One class: precision, recall and F1 in 0..1 (0 where undefined), support = true images of it."""

    model_config = ConfigDict(frozen=True)

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Metrics(BaseModel):
    """The short figures of an engine on one split."""

    model_config = ConfigDict(frozen=True)

    count: int
    accuracy: float
    """0..1"""
    loss: float
    """Mean negative log-likelihood of the true class, in nats."""
    brier: float
    """Brier score, summed over the classes: 0..2."""
    ece: float
    """Expected calibration error, 15 bins, 0..1."""


class Report(Metrics):
    """All figures of an engine on one split."""

    accuracy_interval: tuple[float, float]
    """95 % confidence interval of the accuracy (Wilson)."""
    reliability: list[ReliabilityBin]
    """The bins that ``ece`` is computed over."""
    classes: list[ClassReport]
    confusion_matrix: list[list[int]]
    """Rows true, columns predicted."""
