"""The figures of a model on labelled images."""

from pydantic import BaseModel, ConfigDict


class ReliabilityBin(BaseModel):
    """The predictions in one of 15 confidence intervals of equal width. The means of an empty bin are 0."""

    model_config = ConfigDict(frozen=True)

    count: int
    confidence: float
    """Mean confidence, 0..1."""
    accuracy: float
    """Share of correct predictions, 0..1."""


class ClassReport(BaseModel):
    """The figures of one class. Precision, recall and F1 are 0..1, and 0 if undefined; support counts its images."""

    model_config = ConfigDict(frozen=True)

    label: str
    precision: float
    recall: float
    f1: float
    support: int


class Metrics(BaseModel):
    """The main figures of an engine on one split."""

    model_config = ConfigDict(frozen=True)

    count: int
    accuracy: float
    """0..1"""
    loss: float
    """Mean negative log-likelihood of the true class, in nats."""
    brier: float
    """Brier score, summed over the classes: 0..2."""
    ece: float
    """Expected calibration error of 15 bins, 0..1."""


class Report(Metrics):
    """All figures of an engine on one split."""

    accuracy_interval: tuple[float, float]
    """95 % confidence interval of the accuracy (Wilson)."""
    reliability: list[ReliabilityBin]
    """The bins of ``ece``."""
    classes: list[ClassReport]
    confusion_matrix: list[list[int]]
    """Counts: true classes in rows, predicted classes in columns."""
