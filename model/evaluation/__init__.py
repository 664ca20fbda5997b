"""Figures of a model: accuracy, loss, calibration, comparison of two models, label issues."""

from model.evaluation.report import evaluate, report
from model.metrics import ClassReport, Metrics, Report

__all__ = ["ClassReport", "Metrics", "Report", "evaluate", "report"]
